"""Files: written whole or not at all, locked, read within bounds; errors in one line."""

import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import IO, Any

from bn_inception.errors import UserError


def configs_folder() -> Path:
    """`configs/`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"configs: not found beside or inside {package}; install the package again")


def choices_of(group: str) -> list[str]:
    """The choices in a group of `configs/`; they may lie in a folder of their own: ensemble/1."""
    folder = configs_folder() / group
    names = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted(name.as_posix() for name in names if name.name != "base")


def make_folder(folder: Path, key: str) -> None:
    """Make a folder, and those above it, where missing; else a UserError that names `key`."""
    with refusing(f"{key}: {folder} cannot be created", "choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)


def is_url(root: str | None) -> bool:
    """Whether a place is given as a URL, not as a folder."""
    return root is not None and "://" in root


def first_line(error: BaseException) -> str:
    """What went wrong, in one line: an OSError's reason, or the first line of the message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def refusing(what: str, remedy: str, *others: type[Exception]) -> Iterator[None]:
    """Turn an OSError, and `others`, into a UserError: `what` failed, the reason, the remedy."""
    failures: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except UserError:
        raise
    except failures as error:
        raise UserError(f"{what} ({first_line(error)}); {remedy}") from error


def expanded(path: str) -> Path:
    """`path` with its `~`; an unknown `~user` stays as it is, where pathlib has a RuntimeError."""
    return Path(os.path.expanduser(path))


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write `path` anew: temporary file, fsync, rename, fsync of the folder.

    It appears, or is replaced, at the end of the `with` block; an exception leaves it.
    """
    # The process id keeps two processes that write one file from sharing a temporary one.
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable: they are only once the folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_left_over(name: str) -> bool:
    """Whether a file's name is one of `replacing`'s temporary files: its writer was killed."""
    return re.fullmatch(r"\..+\.[0-9]+\.tmp", name) is not None


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a UserError, and the old file left, where it cannot be."""
    remedy = "make room or choose another folder"
    with refusing(f"{path}: cannot be written", remedy), replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text; bytes of file names that are not UTF-8 stand as JSON escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def plain(value: Any) -> Any:
    """What JSON can say of a value: dataclasses as objects; NaN and infinity are null."""
    if is_dataclass(value):
        return plain(vars(value))
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_bytes` of an indented JSON object; NaN and infinity are a ValueError, not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file; a ValueError if it is no regular one, or has over `limit` bytes."""
    # A pipe would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not path.is_file():
            raise ValueError("not a regular file")
        # Of a file of its whole size nothing is read, one that grows meanwhile is cut.
        long = os.fstat(descriptor).st_size > limit
        content = b"" if long else file.read(limit + 1)
    if long or len(content) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return content


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits; empty if it cannot be read."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait forever.
        with open(path, "rb", opener=lambda name, how: os.open(name, how | os.O_NONBLOCK)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock on a file, which is made where it is missing, and left.

    The lock is the kernel's and ends with the process, however that ends. It belongs to this
    process alone: forked ones do not inherit it, as they would a flock. Where another process holds
    it and `wait` is False, a BlockingIOError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
