"""Files that are either the old content or the new one, whatever happens while they are written."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bn_inception.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: temporary file beside it, fsync, rename, fsync of the folder.

    Raises:
        UserError: the file cannot be written (no permission, disk full); the old one is left.
    """
    # The process id keeps two processes that write one report from sharing a temporary file.
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
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room or choose another folder"
        ) from error


def is_left_over(name: str) -> bool:
    """Whether a file's name is one of `write_bytes`' temporary files: its writer was killed."""
    return re.fullmatch(r"\..+\.[0-9]+\.tmp", name) is not None


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text; bytes of file names that are not UTF-8 stand as JSON escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_bytes` of an indented JSON object; NaN and infinity are a ValueError, not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
