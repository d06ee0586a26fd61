"""Dispatch: one command, its help, and one place that turns errors into lines and statuses."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from bn_inception.cli.help import COMMANDS, command_help, file_name, overview
from bn_inception.cli.terminal import losable_streams
from bn_inception.errors import AgreedError, UserError, close_matches
from bn_inception.quoting import printable

DEBUG = "BN_INCEPTION_DEBUG"
BAD_INPUT, OUTPUT_LOST = 2, 1


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status: 0, or 2 for bad input."""
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        print(overview())
        return 0 if arguments else BAD_INPUT
    if first == "--version":
        from bn_inception import __version__

        print(f"bn-inception {__version__}")
        return 0
    if first in ("-sc", "--shell-completion"):
        _complete(arguments[1:])
        return 0
    name, rest = _command(arguments)
    if "-h" in rest or "--help" in rest:
        print(command_help(name))
        return 0
    status: int = find(name)(rest)
    return status


def find(name: str) -> Any:
    """The `Command` of this name."""
    module = importlib.import_module(f"bn_inception.cli.{COMMANDS[name]}")
    return getattr(module, file_name(name))


def _command(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Split arguments into a command's name, of one word or two, and the rest."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    first = arguments[0]
    longer = [name for name in COMMANDS if name.startswith(f"{first} ")]
    if longer:
        first = " ".join(arguments[:2])
    known = longer or list(COMMANDS)
    near = close_matches(first, known)
    raise UserError(f"{first}: no such command; choose from {', '.join(known)}{near}")


def _complete(words: Sequence[str]) -> None:
    """Completion in the shell, which is Hydra's own, told which command is being typed.

    Prints the shell's function (`install=bash`), or what can follow the line typed so far.
    """
    from bn_inception.config.compose import hydra_on

    line = os.environ.get("COMP_LINE", "")
    typed = f"{' '.join(line.split()[1:])} "
    name = next((name for name in COMMANDS if typed.startswith(f"{name} ")), None)
    if name is None and any(word.startswith("query=") for word in words):
        print(*COMMANDS)
        return
    # Hydra takes one program to be one configuration: the command's name goes.
    os.environ["COMP_LINE"] = line.replace(f" {name}", "", 1)
    config = file_name(name or "train")
    with hydra_on(config) as hydra:
        try:
            hydra.shell_completion(config, list(words))
        except ValueError as error:
            given = " ".join(words) or "nothing"
            raise UserError(f"-sc: {given}; write install=bash, =zsh or =fish") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: a file's name that the terminal's encoding lacks is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    with losable_streams() as output:
        status = _status(arguments)
        output.flush()
        if output.error is not None:
            print(
                f"bn-inception: standard output could not be written ({output.error.strerror}); "
                "what the command writes into files is there",
                file=sys.stderr,
            )
            # A run's result is its folder, and what restarts failed runs must not restart it.
            if status == 0 and arguments[0] != "train":
                status = OUTPUT_LOST
    sys.exit(status)


def _status(arguments: Sequence[str]) -> int:
    try:
        return dispatch(arguments)
    except UserError as error:
        if os.environ.get(DEBUG):
            raise
        if not isinstance(error, AgreedError) or os.environ.get("RANK", "0") == "0":
            line = printable(" ".join(str(error).split()))
            print(f"bn-inception: {line}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        # Somebody else's folder, a name too long, a disk that fails: whatever asked.
        if error.filename is None or os.environ.get(DEBUG):
            raise
        line = printable(
            f"{error.filename}: {error.strerror}; check the path and your rights there"
        )
        print(f"bn-inception: {line}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130
