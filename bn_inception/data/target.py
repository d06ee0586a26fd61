"""Writing below the target of `prepare`: whole files or none, and errors in one line."""

import os
from pathlib import Path

from bn_inception.errors import UserError


def unwritable(path: Path, error: OSError) -> UserError:
    """What is said about a file or folder that cannot be written."""
    return UserError(
        f"target: {path} cannot be written ({error.strerror or error}); make room and call again: "
        "what is finished is kept"
    )


def make_folder(path: Path) -> None:
    """Create a folder where it is missing.

    Raises:
        UserError: it cannot be created.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that its name means it is whole.

    Raises:
        UserError: it cannot be written; what was there is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
