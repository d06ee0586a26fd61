"""Folders made by this package, marked by a file in them; only these are ever removed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.files import first_line

MARK = ".bn-inception"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of writing a file or folder into a UserError of one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"target: {path} cannot be written ({first_line(error)}); make room and call again: "
            "what is finished is kept"
        ) from error


def refuse_foreign(folder: Path, key: str = "target") -> None:
    """Refuse an existing folder that has no mark; an empty one is accepted.

    Raises:
        UserError: with its name and `key`, the setting that led to it.
    """
    if (folder.exists() or folder.is_symlink()) and not _is_own(folder):
        raise UserError(
            f"{key}: {folder} was not made by bn-inception, and is in its way; move it, or choose "
            "another folder"
        )


def make(folder: Path) -> None:
    """Make a marked folder, unless it exists.

    Raises:
        UserError: it cannot be made, or `refuse_foreign` refuses it.
    """
    refuse_foreign(folder)
    with writing(folder):
        folder.mkdir(exist_ok=True)
        (folder / MARK).touch()


def remove(folder: Path) -> None:
    """Remove a marked folder, or what is left of it; leave any other."""
    if not (folder.is_dir() and _is_own(folder)):
        return
    # The files go first, because they describe the folders. The mark goes last.
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
