"""Whether a run may continue with the configuration it is given now."""

import hashlib
import json
from typing import Any

from bn_inception.config.compose import Config, flatten
from bn_inception.config.saved import saved_config
from bn_inception.errors import UserError
from bn_inception.record import RunFolder
from bn_inception.training.settings import Resume, RunConfig

RECORDED = "train."
"""The beginning of the keys that may differ, and whose change is said and recorded."""
MAY_DIFFER = (
    RECORDED,
    "run.resume",
    "run.root",
    "machine.",
    "data.root",
    "data.cache",
    "data.workers",
    "data.on_error",
)
"""Keys, or their beginnings, that change neither the network nor the order of its images."""

Changes = dict[str, tuple[Any, Any]]
"""Values before and after, by key."""


def identity(composed: Config) -> str:
    """A hash of everything in a configuration that may not differ within one run, hexadecimal."""
    kept = {
        key: _comparable(value)
        for key, value in flatten(composed)
        if not key.startswith(MAY_DIFFER)
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _comparable(value: Any) -> Any:
    """The same for all values that are equal: 1 and 1.0."""
    if isinstance(value, list):
        return list(map(_comparable, value))
    return float(value) if type(value) is int else value


def check_unchanged(saved: Config, composed: Config, run_name: str) -> Changes:
    """Compare the configuration a run was started with against the one given now.

    Returns:
        The settings of `train.*` that differ.

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
        if not key.startswith(MAY_DIFFER)
    ]
    if differing:
        raise UserError(
            f"run.resume: {run_name} was started with another configuration: "
            f"{'; '.join(differing)}. Give the same values, or another run.name"
        )
    return {key: values for key, values in changes.items() if key.startswith(RECORDED)}


def continuation(config: RunConfig, composed: Config) -> Changes | None:
    """Decide between a new run (None) and the continuation of an earlier one.

    Args:
        config: its `run.resume` says what is wanted; `auto` continues where there is a run.
        composed: the same configuration, to be compared with the one in the run folder.

    Returns:
        For a continuation the settings of `train.*` that are others from here on.

    Raises:
        UserError: the run was started with another configuration, or does not say with which.
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
