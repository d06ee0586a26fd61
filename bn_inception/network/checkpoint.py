"""Checkpoints that survive a kill at any moment and load without running anything.

A checkpoint is a dictionary of tensors and JSON-able values, written by `torch.save` and loadable
with `weights_only=True`. `last.pt` always exists once the first save is done: the new file is
written under a temporary name, flushed to disk, read back, and only then renamed; the one before
it stays as `previous.pt`. `best.pt` holds the network of the best evaluation, without optimizer.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bn_inception.errors import UserError

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
FORMAT = 1


def save(state: dict[str, Any], folder: Path, name: str = LAST) -> None:
    """Write `state` as `folder/name`, atomically; an earlier `last.pt` is kept as `previous.pt`.

    Raises:
        UserError: the disk is full, the folder cannot be written, or what was written does not
            read back. The checkpoints that were there stay.
    """
    target, temporary = folder / name, folder / f".{name}.tmp"
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if (reason := damage(temporary)) is not None:
            raise OSError(f"the file does not read back: {reason}")
        if name == LAST and target.exists():
            # A second link, then one rename: at every moment there is a whole last.pt.
            link = folder / f".{PREVIOUS}.tmp"
            link.unlink(missing_ok=True)
            link.hardlink_to(target)
            link.replace(folder / PREVIOUS)
        temporary.replace(target)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"checkpoint {target}: could not be written ({error}); the earlier checkpoints are "
            "kept: free some space or check permissions, then continue with run.resume=true"
        ) from error


def damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint file, by its stored CRC-32s; None if it is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        return str(error) or type(error).__name__
    return None if broken is None else f"wrong checksum in {broken}"


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU.

    Raises:
        UserError: missing, damaged, in need of unpickling arbitrary objects, or of another format.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path}: there is no such file")
    if (reason := damage(path)) is not None:
        raise UserError(f"checkpoint {path}: damaged ({reason}); use another checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"checkpoint {path}: refused, it does not load as plain tensors ({first_line})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"checkpoint {path}: not written by bn-inception (format {FORMAT})")
    return state


def load_latest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Read the newest whole checkpoint of a run; None if none was ever written.

    A damaged `last.pt` falls back to `previous.pt`, and `warn` is told so.

    Raises:
        UserError: there are checkpoints and none is whole.
    """
    reasons = []
    for name in (LAST, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            state = load(folder / name)
        except UserError as error:
            reasons.append(str(error))
            continue
        if reasons:
            warn(f"{'; '.join(reasons)}; continuing from {name} at step {state['step']}")
        return state
    if reasons:
        raise UserError("; ".join(reasons))
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
