"""`--help`, read from the comments in the YAML files of `configs/`: the one place that has them."""

import argparse
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bn_inception.files import choices_of, configs_folder

NAMES = (
    "train",
    "evaluate",
    "verify-resume",
    "plan",
    "prepare",
    "audit",
    "benchmark input",
    "benchmark step",
    "mnist",
    "runs",
    "compare",
    "claims",
    "ensemble",
    "difference",
    "predict",
    "import-weights",
    "export",
)
"""Every command, as it is typed."""
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
    """The name of a command's module, and of its file in `configs/`."""
    return command.replace("-", "_").replace(" ", "_")


def overview() -> str:
    """Return the text of `bn-inception --help`."""
    parser = _parser(
        "bn-inception COMMAND [key=value ...]",
        "Reproduces Batch Normalization (Ioffe and Szegedy, 2015).",
        "bn-inception COMMAND --help shows a command's keys and examples.",
    )
    commands = parser.add_argument_group("commands")
    for name in NAMES:
        _add(commands, name, _head(_root(name))[1])
    return parser.format_help().rstrip()


def command_help(name: str) -> str:
    """Return the text of `bn-inception NAME --help`."""
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
    own: dict[str, str] = {}
    for path in _own_files(_root(name)):
        own = {**dict(_comments(path, "")), **{key: text for key, text in own.items() if text}}
    composed, groups = _composed(name)
    comments = {key: text for key, text in own.items() if text}
    for group in groups:
        for path in sorted((configs_folder() / group).glob("*.yaml"), key=_base_first):
            prefix = "" if "@package _global_" in path.read_text("utf-8") else f"{group}."
            for key, comment in _comments(path, prefix):
                if comment:
                    comments.setdefault(key, comment)
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
    groups = OmegaConf.to_container(composed.hydra.runtime.choices)
    keys = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(groups, dict) and isinstance(keys, dict)
    del keys["hydra"]
    chosen = {str(group): choice for group, choice in groups.items() if "hydra" not in str(group)}
    # Hydra lists them backwards.
    return {str(key): value for key, value in keys.items()}, dict(reversed(chosen.items()))


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


def _comments(path: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Every leaf key of a YAML file, dotted, and its comment.

    The comment stands beside the key, or else above it, or else beside its section.
    """
    text = path.read_text("utf-8")
    lines = text.splitlines()

    def beside(mark: yaml.Mark) -> str:
        rest: str = lines[mark.line][mark.column :]
        return rest.lstrip(": ").removeprefix("#").strip()

    def walk(node: Any, prefix: str, section: str) -> Iterator[tuple[str, str]]:
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if isinstance(value, yaml.MappingNode):
                yield from walk(value, f"{name}.", beside(key.end_mark))
            else:
                above = " ".join(_block(lines, key.start_mark.line))
                yield name, beside(value.end_mark) or above or section

    yield from walk(yaml.compose(text), prefix, "")


def _block(lines: list[str], end: int) -> list[str]:
    """The comment lines right above a line, but for those that begin the file."""
    start = end
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return [line.lstrip(" #") for line in lines[start:end]] if start else []


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
