"""The file that `output=` names."""

import os
from pathlib import Path

from bn_inception.errors import UserError


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
