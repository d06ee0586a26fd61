"""Folders of this package's own, told from the user's by a file in them; no other is removed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.files import first_line

MARK = ".bn-inception"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line, as a UserError, that a file or folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"target: {path} cannot be written ({first_line(error)}); make room and call again: "
            "what is finished is kept"
        ) from error


def refuse_foreign(folder: Path, key: str = "target") -> None:
    """Refuse a folder that is in the way and not of our making; an empty one is taken.

    Raises:
        UserError: with its name, and `key`, the setting that led there.
    """
    if (folder.exists() or folder.is_symlink()) and not _is_own(folder):
        raise UserError(
            f"{key}: {folder} was not made by bn-inception, and is in its way; move it, or choose "
            "another folder"
        )


def make(folder: Path) -> None:
    """Make a folder of one's own, unless it is there.

    Raises:
        UserError: it cannot be made; see also `refuse_foreign`.
    """
    refuse_foreign(folder)
    with writing(folder):
        folder.mkdir(exist_ok=True)
        (folder / MARK).touch()


def remove(folder: Path) -> None:
    """Remove a folder of one's own, whatever is left of it; another one stays."""
    if not (folder.is_dir() and _is_own(folder)):
        return
    # Files go first: they say what the folders hold. The mark goes last: it says whose all is.
    for path in sorted(folder.iterdir(), key=Path.is_dir):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    (folder / MARK).unlink(missing_ok=True)
    folder.rmdir()


def _is_own(folder: Path) -> bool:
    return not folder.is_symlink() and (
        (folder / MARK).is_file() or (folder.is_dir() and not any(folder.iterdir()))
    )
