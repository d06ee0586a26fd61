"""What all commands do with their arguments."""

import os
from collections.abc import Sequence
from pathlib import Path

from bn_inception.errors import UserError


def take_print_config(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Split off Hydra's `--cfg job`; return the other arguments and whether it was there."""
    rest = list(arguments)
    if "--cfg" not in rest and "-c" not in rest:
        return rest, False
    at = rest.index("--cfg" if "--cfg" in rest else "-c")
    what = rest[at + 1 : at + 2]
    if what != ["job"]:
        given = what[0] if what else "nothing"
        raise UserError(f"--cfg: {given}; only 'job' is there to print")
    del rest[at : at + 2]
    return rest, True


def split_positional(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into plain ones (files and folders) and `key=value` overrides."""
    plain = [word for word in arguments if "=" not in word and not word.startswith("-")]
    return plain, [word for word in arguments if word not in plain]


def output_file(given: str | None) -> Path | None:
    """The file that `output=` names; checked before a measurement of minutes, not after it.

    Raises:
        UserError: it is a folder, or lies in none, or in one that cannot be written to.
    """
    if given is None:
        return None
    # os.path, unlike pathlib, has no errors of its own: an unknown ~user, a name that is too long.
    path = os.path.expanduser(given) or "."
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UserError(f"output: {folder} is no folder; make it first")
    if os.path.isdir(path):
        raise UserError(
            f"output: {path} is a folder; give the name of a file, such as a.json in it"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"output: {folder} cannot be written to; choose another folder")
    return Path(path)
