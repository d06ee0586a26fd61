"""What all commands do with their arguments."""

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
        UserError: its folder does not exist.
    """
    if given is None:
        return None
    path = Path(given).expanduser()
    if not path.parent.is_dir():
        raise UserError(f"output: {path.parent} is no folder; make it first")
    return path
