"""Configurations that were saved in a run folder, perhaps by somebody else."""

import io
import re
from collections.abc import Collection
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from bn_inception.config.compose import Config, as_dict, flatten, refuse_numbers
from bn_inception.errors import UserError
from bn_inception.files import is_url, read_bytes, refusing
from bn_inception.record.run_folder import refuse_links

MAX_BYTES = 1 << 18
MAX_DEPTH = 16
"""A composed configuration has 4 KB, and lists in sections in itself."""
_NAMES = ("recipe.name", "scale.name", "data.kind")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


def saved_config(folder: Path) -> Config | None:
    """The configuration that a run folder was made with; None where it has none."""
    refuse_links(folder)
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    config = read_yaml(path)
    values = dict(flatten(config))
    for key in _NAMES:
        value = values.get(key)
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise UserError(
                f"{path}: {key} is {value!r}, not a name; restore the file from a copy, or leave "
                "the run out"
            )
    return config


def take_given(saved: Config, composed: Config, given: Collection[str]) -> None:
    """Set in a run's configuration what this machine and the command line have otherwise.

    Where data are kept on this machine is never the run's to say, and a URL is not opened because a
    run folder, perhaps somebody else's, names it: that is a UserError.

    Args:
        saved: of the run; changed in place.
        composed: what may be given.
        given: the keys on the command line; a group, such as `data`, is all of its keys.
    """
    root = saved["data"].get("root")
    if isinstance(root, str) and is_url(root) and "data.root" not in given:
        raise UserError(
            f"data.root: {root} stands in the run's config.yaml, and is not opened for that; give "
            "data.root=URL to read it, or data.root=FOLDER"
        )
    for key, value in flatten(composed):
        section, _, name = key.partition(".")
        if key in given or key == "data.cache" or section in given:
            saved.setdefault(section, {})[name] = value


def read_yaml(path: Path) -> Config:
    """Read YAML as OmegaConf does (PyYAML alone takes 1e-4 for a text), and resolve nothing.

    What training saves is resolved. An interpolation could read this machine's environment, and
    aliases make gigabytes of a few lines: neither is read.
    """
    # Damaged YAML raises yaml's errors, OmegaConf's, ValueError, RecursionError, ...
    with refusing(f"{path}: cannot be read as YAML", "restore it from a copy", Exception):
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
        if reason := _forbidden(text):
            raise UserError(f"{path}: {reason}, which no saved configuration has; restore it")
        loaded = OmegaConf.load(io.StringIO(text))
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path}: holds no configuration")
    config = as_dict(loaded)
    refuse_numbers(config, f"{path}: ")
    return config


def _forbidden(text: str) -> str | None:
    """What a saved configuration does not hold, seen before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            return f"holds the alias *{event.anchor}"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return f"is nested more than {MAX_DEPTH} deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            return "holds an interpolation, ${...}"
    return None
