"""`--help`, read from the comments in the YAML files of `configs/`: the one place that has them."""

import argparse
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bn_inception.files import choices_of, configs_folder

COMMANDS = {
    "train": "train",
    "evaluate": "evaluate",
    "verify-resume": "verify_resume",
    "plan": "benchmarks",
    "prepare": "datasets",
    "audit": "datasets",
    "benchmark input": "benchmarks",
    "benchmark step": "benchmarks",
    "mnist": "mnist",
    "runs": "reports",
    "compare": "reports",
    "claims": "reports",
    "ensemble": "predictions",
    "difference": "predictions",
    "predict": "evaluate",
    "import-weights": "weights",
    "export": "weights",
}
"""Every command, as it is typed, and the module that has it."""
WIDTH = 80
NOT_READ = "not read here"
"""The comment of a key that a command has only because a group has it."""


@dataclass(frozen=True)
class Key:
    """One key of a configuration, dotted; its default as the YAML has it; its comment."""

    name: str
    default: str
    comment: str


def file_name(command: str) -> str:
    """The name of a command's function, and of its file in `configs/`."""
    return command.replace("-", "_").replace(" ", "_")


def overview() -> str:
    """The text of `bn-inception --help`."""
    parser = _parser(
        "bn-inception COMMAND [key=value ...]",
        "Reproduces Batch Normalization (Ioffe and Szegedy, 2015).",
        "bn-inception COMMAND --help shows a command's keys and examples.",
    )
    commands = parser.add_argument_group("commands")
    for name in COMMANDS:
        _add(commands, name, _head(_root(name))[1])
    return parser.format_help().rstrip()


def command_help(name: str) -> str:
    """The text of `bn-inception NAME --help`."""
    usage, summary, *rest = _head(_root(name))
    parser = _parser(usage, summary, "\n\n".join(rest))
    _, chosen = _composed(name)
    if chosen:
        groups = parser.add_argument_group("groups, a file of configs/ each")
        for group, choice in chosen.items():
            _add(groups, f"{group}={choice}", " | ".join(choices_of(group)))
    keys = parser.add_argument_group("keys with their defaults")
    for key in keys_of(name):
        if key.comment != NOT_READ:
            _add(keys, f"{key.name}={key.default}", key.comment)
    options = parser.add_argument_group("options")
    _add(options, "--cfg job", "print the resolved configuration and stop")
    if chosen:
        _add(options, "--config-dir FOLDER", "more files of one's own for the groups")
    if name == "train":
        _add(options, "-m", "every run of a sweep: recipe=inception,bn_x5 run.seed=0,1")
    return parser.format_help().rstrip()


def keys_of(name: str) -> list[Key]:
    """Every key of a command, its own first.

    A comment in the command's own file goes before one of a group; within a group the first of
    `base.yaml` and the other files counts.
    """
    comments: dict[str, str] = {}

    def read(path: Path, prefix: str) -> None:
        for key, comment in _comments(path.read_text("utf-8")):
            comments[prefix + key] = comments.get(prefix + key) or comment

    for path in _own_files(_root(name)):
        read(path, "")
    own = set(comments)
    composed, groups = _composed(name)
    for group in groups:
        for path in sorted((configs_folder() / group).glob("*.yaml"), key=_base_first):
            read(path, "" if "@package _global_" in path.read_text("utf-8") else f"{group}.")
    keys = [Key(key, default, comments.get(key, "")) for key, default in _leaves(composed)]
    return sorted(keys, key=lambda key: key.name not in own)


def _root(name: str) -> Path:
    return configs_folder() / f"{file_name(name)}.yaml"


def _base_first(path: Path) -> tuple[bool, str]:
    return path.stem != "base", path.stem


@functools.cache
def _composed(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A command's configuration, nothing resolved, and the choices in its groups."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(configs_folder())):
        composed = compose(config_name=file_name(name), return_hydra_config=True)
    groups: Any = OmegaConf.to_container(composed.hydra.runtime.choices)
    keys: Any = OmegaConf.to_container(composed, resolve=False)
    del keys["hydra"]
    # Hydra lists them backwards.
    return keys, {group: groups[group] for group in reversed(groups) if "hydra" not in group}


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _written(value)


def _written(value: Any) -> str:
    """A default as it is typed; what is computed, found or has to be given is left open."""
    if value is None or "${" in str(value) or value == "???":
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace(" ", "")


def _own_files(root: Path) -> Iterator[Path]:
    """A command's file, and those that it names whole in its list of defaults."""
    yield root
    for entry in yaml.safe_load(root.read_text("utf-8")).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield from _own_files(root.parent / f"{entry}.yaml")


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """Every key of a YAML file, dotted, and its comment.

    The comment stands beside the key, or else above it, or else beside its section.
    """
    sections: list[str] = []
    beside_section, above = "", ""
    for line in text.splitlines():
        code, _, comment = line.partition("#")
        key = re.match(r"( *)([a-z_0-9]+):(.*)", code)
        if key is None:
            above = f"{above} {comment}" if not code.strip() and sections else ""
            continue
        sections[len(key[1]) // 2 :] = [key[2]]
        comment = comment.strip() or above.strip()
        yield ".".join(sections), comment or (beside_section if key[1] else "")
        above = ""
        if not key[3].strip():
            beside_section = comment


def _head(path: Path) -> list[str]:
    """The paragraphs of the comment that begins a command's file: usage, summary, what else."""
    lines = path.read_text("utf-8").splitlines()
    count = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:count])
    return text.split("\n\n")


def _parser(usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """It only shows help: lines are broken as everywhere in Python."""
    return argparse.ArgumentParser(
        usage=usage.replace("%", "%%"),
        description=description,
        epilog=epilog,
        add_help=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=28, width=WIDTH
        ),
    )


def _add(group: argparse._ArgumentGroup, what: str, comment: str) -> None:
    group.add_argument(what.lstrip("-"), metavar=what, help=comment.replace("%", "%%"))
