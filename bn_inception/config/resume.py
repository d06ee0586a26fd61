"""Whether a run may continue with the configuration it is given now."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bn_inception.config.compose import Config, compose, flatten, keys_given
from bn_inception.config.saved import saved_config, take_given
from bn_inception.errors import UserError
from bn_inception.record.run_folder import SAME_RUN, RunFolder
from bn_inception.training.settings import Resume, RunConfig

RECORDED = "train."
"""The beginning of the keys that may differ, and whose change is recorded."""

Changes = dict[str, tuple[Any, Any]]
"""Values before and after, by key."""


def identity(composed: Config) -> str:
    """A hash of everything in a configuration that may not differ within one run, hexadecimal."""
    kept = {
        key: _comparable(value) for key, value in flatten(composed) if not key.startswith(SAME_RUN)
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _comparable(value: Any) -> Any:
    """The same for all values that are equal: 1 and 1.0."""
    if isinstance(value, list):
        return list(map(_comparable, value))
    return float(value) if type(value) is int else value


def check_unchanged(saved: Config, composed: Config, run_name: str) -> Changes:
    """The settings that differ from those a run was started with, but for those of `run`.

    Raises:
        UserError: a key differs that would make it another run; each is named with both values.
    """
    before, now = dict(flatten(saved)), dict(flatten(composed))
    changes = {
        key: (before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }
    differing = [
        f"{key} was {was!r}, is {value!r}"
        for key, (was, value) in changes.items()
        if not key.startswith(SAME_RUN)
    ]
    if differing:
        raise UserError(
            f"run.resume: {run_name} was started with another configuration: "
            f"{'; '.join(differing)}. Give the same values, or another run.name"
        )
    return {key: values for key, values in changes.items() if not key.startswith("run.")}


def continuation(config: RunConfig, composed: Config) -> Changes | None:
    """Decide between a new run (None) and the continuation of an earlier one.

    Args:
        config: its `run.resume` says what is wanted.
        composed: the same configuration, to be compared with the one in the run folder.

    Returns:
        For a continuation the settings that are others from here on.
    """
    folder = RunFolder(config.run.root, config.run.name)
    wanted = config.run.resume
    if wanted is Resume.never or (wanted is Resume.auto and not folder.has_run()):
        return None
    if not folder.has_run():
        return {}  # opening the folder says what is wrong
    saved = saved_config(folder.path)
    if saved is None:
        raise UserError(
            f"{folder.config}: missing, so that nobody can say what this run was started with; "
            "restore it from a copy, or choose another run.name"
        )
    return check_unchanged(saved, composed, str(folder.path))


def continued(folder: str, overrides: Sequence[str]) -> Config:
    """The configuration of the run in a folder, wherever it lies now, with what may be changed."""
    path = Path(os.path.abspath(os.path.expanduser(folder)))
    saved = saved_config(path)
    if saved is None:
        raise UserError(
            f"resume: {folder}: has no config.yaml; give a run folder such as outputs/<run.name>"
        )
    may = tuple(key for key in SAME_RUN if not key.startswith("run."))
    keys = keys_given(overrides)
    for key, word in zip(keys, overrides, strict=True):
        if not key.startswith((*may, "hydra.")) and key != "machine":
            raise UserError(
                f"{word}: a run goes on as it was begun; beside resume= only machine, "
                f"{', '.join(key.replace('.', '.*') if key[-1] == '.' else key for key in may)} "
                "may be given"
            )
    composed = compose("train", overrides)
    take_given(saved, composed, keys)
    saved["run"] = saved.get("run", {}) | {
        "root": str(path.parent),
        "name": path.name,
        "resume": Resume.must.value,
    }
    return saved
