"""Checkpoints that survive a kill at any moment and load without running anything.

A checkpoint is a dictionary of tensors and JSON-able values, written by `torch.save` and loadable
with `weights_only=True`. From the first save on `last.pt` always exists: a new file is written
under a temporary name, flushed to disk, read back, and only then renamed. The file before it stays
as `previous.pt`. `best.pt` holds the network of the best evaluation, without the optimizer.

`network` is ready for inference. If its weights were evaluated, its BN statistics are those of the
population (BN Algorithm 2), and `population_batches` is the number of mini-batches. Otherwise they
are running statistics, and `population_batches` is None. `running_statistics` always holds the
running statistics of training, by name.

A file of unknown origin is read by `TensorFile`: checked before anything of its size is made.
"""

import hashlib
import io
import os
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from bn_inception.errors import UserError
from bn_inception.fields import Fields
from bn_inception.files import file_sha256, first_line, replacing
from bn_inception.network.inception import Inception
from bn_inception.network.normalization import running_statistics
from bn_inception.network.settings import NetworkConfig

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
FORMAT = 1


def save(state: dict[str, Any], folder: Path, name: str = LAST) -> None:
    """Write `state` as `folder/name`, atomically; an earlier `last.pt` is kept as `previous.pt`.

    Where that fails, the checkpoints that were there stay.
    """
    target = folder / name
    try:
        # Through memory: on a full disk torch.save says only "unexpected pos".
        content = io.BytesIO()
        torch.save({"format": FORMAT, **state}, content)
        with replacing(target) as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # before previous.pt is touched: the disk may be full
            if (reason := damage(Path(file.name))) is not None:
                raise OSError(f"the file does not read back: {reason}")
            if name == LAST and target.exists():
                # A second link, then one rename, so that a whole last.pt exists at every moment.
                link = folder / f".{PREVIOUS}.tmp"
                link.unlink(missing_ok=True)
                _link_or_copy(target, link)
                link.replace(folder / PREVIOUS)
    except OSError as error:
        raise UserError(
            f"checkpoint {target}: could not be written ({error}); the earlier checkpoints are "
            "kept: free some space or check permissions, then continue with run.resume=must"
        ) from error


def _link_or_copy(target: Path, link: Path) -> None:
    try:
        link.hardlink_to(target)
    except OSError:
        # exFAT and some network file systems have no hard links, and report different errors.
        # If the disk is full, the copy reports it.
        shutil.copyfile(target, link)
        with link.open("rb") as file:
            os.fsync(file.fileno())


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, by its stored CRC-32s; None if it is intact."""
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not compress; a compressed entry of 350 KB could unpack to gigabytes.
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return "its entries are longer than the file"
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        # RuntimeError: one flipped bit makes an entry look encrypted, or compressed unknowably.
        return first_line(error)
    return None if broken is None else f"wrong checksum in {broken}"


class TensorFile:
    """A file that should hold a network's tensors; what does not fit is a UserError of one line.

    Args:
        path: of the file.
        remedy: ends every message.
        kind: stands before the path in every message.
    """

    def __init__(self, path: Path, remedy: str, kind: str = "") -> None:
        self.path, self._remedy = path, remedy
        self.where = f"{kind}{path}"
        if not path.is_file():
            self.refuse("there is no such file")

    def refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        """Raise the UserError."""
        raise UserError(f"{self.where}: {reason}; {self._remedy}") from cause

    def named(self, values: object) -> dict[str, Tensor]:
        """`values`, which must be tensors by name."""
        if not isinstance(values, Mapping) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in values.items()
        ):
            self.refuse("holds no network's parameters (names and tensors)")
        return dict(values)

    def require(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
        """Refuse tensors of other names, kinds or shapes than expected, or larger than the file.

        Those expected may lie on the meta device: nothing is allocated before the check.
        """
        for keys, problem in (
            (sorted(expected.keys() - found.keys()), "missing"),
            (sorted(found.keys() - expected.keys()), "unknown"),
        ):
            if keys:
                shown = ", ".join([*keys[:3], *["..."] * (len(keys) > 3)])
                self.refuse(f"of another network, {len(keys)} {problem}: {shown}")
        for name, wanted in expected.items():
            given = found[name]
            strided = given.layout is torch.strided and not given.is_quantized
            if not strided or given.device.type != "cpu":
                self.refuse(f"{name} is no plain tensor with values")
            if given.dtype.is_complex or given.is_floating_point() != wanted.is_floating_point():
                self.refuse(f"{name} is of type {given.dtype}, not {wanted.dtype}")
            if given.shape != wanted.shape:
                self.refuse(f"{name} has the shape {(*given.shape,)}, not {(*wanted.shape,)}")
        # A view can repeat one value any number of times.
        if sum(tensor.nbytes for tensor in found.values()) > self.path.stat().st_size:
            self.refuse("its tensors have more values than the file")


def _refusal(error: Exception) -> str:
    # Our own words, because torch's message advises to read the file unsafely.
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text.lower():
        named = re.search(r"GLOBAL ([\w.]+)", text)
        what = f"it names {named[1]}, which is no tensor" if named else "it holds more than tensors"
        return f"{what}: reading it could run any code"
    return f"it does not load as plain tensors ({first_line(error)})"


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU."""
    file = TensorFile(path, "use another checkpoint", "checkpoint ")
    if (reason := damage(path)) is not None:
        file.refuse(f"damaged ({reason})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an old pickle protocol
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling hostile bytes may raise anything
        file.refuse(f"refused, {_refusal(error)}", error)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        file.refuse(f"not written by bn-inception (format {FORMAT})")
    return dict(state)


def load_latest(
    folder: Path, warn: Callable[[str], None], keys: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Read the newest intact checkpoint of a run; None if none was ever written.

    If `last.pt` is missing, damaged or lacks one of `keys`, `previous.pt` is read; `warn` is told.
    """
    paths = [folder / LAST, folder / PREVIOUS]
    if not any(path.exists() for path in paths):
        return None
    reasons = []
    for path in paths:
        try:
            state = _whole(path, ("step", "network", *keys))
        except UserError as error:
            reasons.append(str(error))
            continue
        if reasons:
            warn(f"{'; '.join(reasons)}; continuing from {path.name} at step {state['step']}")
        return state
    raise UserError("; ".join(reasons))


def _whole(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"checkpoint {path}: missing")
    state = load(path)
    missing = [key for key in keys if key not in state]
    if missing or type(state["step"]) is not int:
        raise UserError(
            f"checkpoint {path}: holds no {(missing or ['step'])[0]}, as if it were another file "
            f"than {path.name}; restore it from a copy"
        )
    return state


@dataclass(frozen=True)
class LoadedNetwork:
    """A trained network, on the CPU, channels_last, in evaluation mode, and what is known of it.

    Attributes:
        classes: name of each output.
        sha256: of the file, hexadecimal.
        preprocessing: how training read its images (`data.preprocessing.describe`).
        population_batches: training mini-batches over which BN Algorithm 2 computed the network's
            statistics; None if these are running statistics.
        running_statistics: of training, by their names in the network.
    """

    network: Inception
    classes: tuple[str, ...]
    recipe: str
    step: int
    sha256: str
    preprocessing: dict[str, str]
    population_batches: int | None
    running_statistics: dict[str, Tensor]


def load_network(path: str | Path) -> LoadedNetwork:
    """Build the network that a checkpoint describes and load its parameters and statistics."""
    state = load(Path(path))
    file = TensorFile(Path(path), "use a checkpoint of bn-inception train", "checkpoint ")
    return described_network(Fields(state, file.where), state.get("network"), file)


def described_network(said: Fields, parameters: object, file: TensorFile) -> LoadedNetwork:
    """Build the network that `said` describes, with `parameters`, its state_dict from `file`.

    `said` has `network_config` (see `plain`) and the fields of `LoadedNetwork`.
    """
    classes, tensors = said.get("classes", list[str]), file.named(parameters)
    described = _on_meta(said, len(classes))
    file.require(tensors, described.state_dict())
    network = Inception(described.config, len(classes))
    network.load_state_dict(tensors)
    own = {name: tensors[name] for name in running_statistics(network)}
    running = file.named(said.values.get("running_statistics", own))
    file.require(running, own)
    return LoadedNetwork(
        network=network.to(memory_format=torch.channels_last).eval(),
        classes=tuple(classes),
        recipe=said.get("recipe", str),
        step=said.get("step", int),
        sha256=file_sha256(file.path),
        preprocessing=said.get("preprocessing", dict[str, str]),
        population_batches=said.get("population_batches", int | None),
        running_statistics=running,
    )


def plain(config: NetworkConfig) -> dict[str, Any]:
    """Turn a network's settings into JSON-able values."""
    values = asdict(config)
    return {key: v.value if isinstance(v, Enum) else v for key, v in values.items()}


def _on_meta(said: Fields, outputs: int) -> Inception:
    """The network that `said` describes, on the meta device: nothing is allocated."""
    given = said.get("network_config", Fields)
    unknown = given.values.keys() - {field.name for field in fields(NetworkConfig)}
    if unknown:
        raise UserError(
            f"{said.where}: the network setting {min(map(str, unknown))} is unknown to this "
            "version; update bn-inception, or use another checkpoint"
        )
    try:
        config = Fields(given.values, "network_config").as_(NetworkConfig)
        with torch.device("meta"):
            return Inception(config, outputs)
    except (UserError, OverflowError) as error:
        raise UserError(f"{said.where}: {error}; use another checkpoint") from error


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Hash every tensor's name and bytes: equal if and only if all weights are, bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
