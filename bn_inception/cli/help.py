"""`--help`, read from the comments in the YAML files of `configs/`: the one place that has them."""

import argparse
import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

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
    "export": "evaluate",
}
"""Every command, as it is typed, and the module that has it."""
WIDTH = 80
NOT_READ = "not read here"
"""The comment of a key that a command has only because a group has it."""


class Key(NamedTuple):
    """One key of a configuration, dotted; its default as it is typed; its comment."""

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
    _add(parser, "commands", {name: _head(name)[1] for name in COMMANDS})
    return parser.format_help().rstrip()


def command_help(name: str) -> str:
    """The text of `bn-inception NAME --help`."""
    usage, summary, *rest = _head(name)
    parser = _parser(usage, summary, "\n\n".join(rest))
    _, chosen = _composed(name)
    groups = {f"{group}={choice}": " | ".join(choices_of(group)) for group, choice in chosen}
    if groups:
        _add(parser, "groups, a file of configs/ each", groups)
    read = {
        f"{key.name}={key.default}": key.comment for key in keys_of(name) if key.comment != NOT_READ
    }
    _add(parser, "keys with their defaults", read)
    options = {"--cfg job": "print the resolved configuration and stop"}
    if groups:
        options["--config-dir FOLDER"] = "more files of one's own for the groups"
    if name == "train":
        options["-m"] = "every run of a sweep: recipe=inception,bn_x5 run.seed=0,1"
    _add(parser, "options", options)
    return parser.format_help().rstrip()


def keys_of(name: str) -> list[Key]:
    """Every key of a command, its own first.

    A comment in the command's own file goes before one of a group; within a group the first of
    `base.yaml` and the other files counts.
    """
    from bn_inception.config.compose import flatten, written

    comments: dict[str, str] = {}

    def read(text: str, prefix: str) -> None:
        for key, comment in _comments(text):
            comments[prefix + key] = comments.get(prefix + key) or comment

    for text in _own_texts(file_name(name)):
        read(text, "")
    own = set(comments)
    composed, chosen = _composed(name)
    for group, _ in chosen:
        files = sorted((configs_folder() / group).glob("*.yaml"))
        for path in sorted(files, key=lambda path: path.stem != "base"):
            text = path.read_text("utf-8")
            read(text, "" if "@package _global_" in text else f"{group}.")
    keys = []
    for key, value in flatten(composed):
        # What is computed, found or has to be given is left open.
        left_open = value is None or value == "???" or "${" in str(value)
        keys.append(Key(key, "" if left_open else written(value), comments.get(key, "")))
    return sorted(keys, key=lambda key: key.name not in own)


@functools.cache
def _composed(name: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A command's configuration, nothing resolved, and the choices in its groups."""
    from hydra import compose
    from omegaconf import OmegaConf

    from bn_inception.config.compose import hydra_on

    with hydra_on(file_name(name)):
        composed = compose(file_name(name), return_hydra_config=True)
    keys: Any = OmegaConf.to_container(composed, resolve=False)
    groups = keys.pop("hydra")["runtime"]["choices"]
    # Hydra lists them backwards.
    return keys, [(group, groups[group]) for group in reversed(groups) if "hydra" not in group]


def _own_texts(name: str) -> Iterator[str]:
    """A command's file, and those that it names whole in its list of defaults."""
    text = (configs_folder() / f"{name}.yaml").read_text("utf-8")
    yield text
    for entry in yaml.safe_load(text).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield from _own_texts(entry)


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


def _head(name: str) -> list[str]:
    """The paragraphs of the comment that begins a command's file: usage, summary, what else."""
    text = next(_own_texts(file_name(name)))
    lines = re.match(r"(#.*\n)*", text)[0].splitlines()  # type: ignore[index]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines).split("\n\n")


def _parser(usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """It only shows help: lines are broken as everywhere in Python."""
    return argparse.ArgumentParser(
        usage=usage.replace("%", "%%"),
        description=description,
        epilog=epilog,
        add_help=False,
        formatter_class=functools.partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=28, width=WIDTH
        ),
    )


def _add(parser: argparse.ArgumentParser, title: str, rows: dict[str, str]) -> None:
    group = parser.add_argument_group(title)
    for what, comment in rows.items():
        group.add_argument(what.lstrip("-"), metavar=what, help=comment.replace("%", "%%"))
