"""The folder that a report goes into."""

from pathlib import Path

from bn_inception.errors import UserError


def make_folder(folder: str | Path) -> Path:
    """Create `folder` where it is missing.

    Raises:
        UserError: it cannot be created.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output: {folder} cannot be created ({error.strerror}); choose another folder"
        ) from error
    return folder
