"""Files at a URL that fsspec understands, fetched once into a local folder and kept there.

The name of a cached file contains its checksum, so all runs and processes of a machine may share
the folder. One process fetches a file while the others that need it wait. Nothing else there is
touched. fsspec is imported when a URL is opened.
"""

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bn_inception.errors import UserError
from bn_inception.files import file_sha256, first_line, locked

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds between the attempts of a fetch
STALLED_SECONDS = 30.0  # after this long without a byte a connection counts as broken
# Seconds that a file may take, and bytes for each further second; slower counts as broken.
FIRST_SECONDS, LEAST_RATE = 60.0, 100_000
# Limits for files whose size no description gives; ImageNet's have 0.1 and 60 MB.
MAX_DESCRIPTION_BYTES, MAX_INDEX_BYTES = 1 << 26, 1 << 33


def fetched(url: str, path: Path, size: int | None, sha256: str) -> str:
    """The local `path` of a remote file, fetched unless it is there; `size` None if unknown."""
    if _is_whole(path, size, sha256):
        return str(path)
    with _writing(path.parent / "locks") as locks, locked(locks / path.name):
        if not _is_whole(path, size, sha256):
            part = path.with_name(f"{path.name}.part")  # only the lock's holder writes it
            try:
                _download(url, part, size or MAX_INDEX_BYTES, PAUSES, sha256)
                with part.open("rb") as file:
                    os.fsync(file.fileno())  # a name must stand for its content after a power cut
                part.replace(path)
            except FileNotFoundError as error:
                raise UserError(
                    f"data.root: {url} does not exist; copy all files of the split there, then go "
                    "on with run.resume=must"
                ) from error
            finally:
                part.unlink(missing_ok=True)
    return str(path)


@contextmanager
def fetched_once(url: str, cache: Path) -> Iterator[Path]:
    """A small remote file, removed at the end of the `with` block; or FileNotFoundError."""
    with _writing(cache), TemporaryDirectory(dir=cache) as folder:
        path = Path(folder, "description")
        # Few attempts, so that a mistyped address is reported in seconds.
        _download(url, path, MAX_DESCRIPTION_BYTES, PAUSES[:2])
        yield path


def _is_whole(path: Path, size: int | None, sha256: str) -> bool:
    if size is None:
        return file_sha256(path) == sha256
    return path.exists() and path.stat().st_size == size


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Make a folder of the cache; raise a UserError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except FileNotFoundError:
        raise  # at the URL
    except OSError as error:
        raise UserError(
            f"data.cache: {folder} cannot be written ({first_line(error)}); free space there, or "
            "give another folder"
        ) from error


def _download(
    url: str, path: Path, limit: int, pauses: tuple[float, ...], sha256: str = ""
) -> None:
    """Copy a URL's content to a file, in several attempts; another SHA-256 is a failure.

    FileNotFoundError: there is no such file; another OSError: `path` cannot be written.
    """
    filesystem, place = _filesystem(url)
    import fsspec.callbacks

    class Bounded(fsspec.callbacks.Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > limit:
                raise ValueError(f"more than {limit:,} bytes came")

    # Do not wait for a server that sends nothing, or a byte now and then.
    seconds = FIRST_SECONDS + limit / LEAST_RATE
    deadline = {"timeout": seconds} if getattr(filesystem, "async_impl", False) else {}
    for pause in (*pauses, None):
        try:
            filesystem.get_file(place, str(path), callback=Bounded(), **deadline)
            if sha256 and file_sha256(path) != sha256:
                raise ValueError("what came has another SHA-256 than the description says")
            return
        except FileNotFoundError:
            raise
        except Exception as error:
            # Every file system has its own exceptions, without a common base class.
            # A failed write has an errno and no file name; a failed opening has both.
            if isinstance(error, OSError) and (
                error.filename == str(path) or error.errno in (errno.ENOSPC, errno.EDQUOT)
            ):
                raise
            # HTTP 4xx is final, unless it says "later" or "too many requests".
            status = getattr(error, "status", None)
            refused = status in range(400, 500) and status not in (408, 425, 429)
            final = refused or isinstance(error, PermissionError)
            if pause is None or final:
                tried = "" if final else f" after {len(pauses) + 1} tries"
                raise UserError(
                    f"data.root: {url} cannot be read{tried} ({first_line(error)}); check the "
                    "address, the network and your rights there, then go on with run.resume=must"
                ) from error
            time.sleep(pause)


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; fsspec keeps one for each process and thread."""
    try:
        import fsspec.core

        options: dict[str, Any] = {}
        if re.match("https?://", url):
            import aiohttp

            # The default allows only five minutes for a whole shard, even if it makes progress.
            stalled = {"sock_connect": STALLED_SECONDS, "sock_read": STALLED_SECONDS}
            timeout = aiohttp.ClientTimeout(total=None, **stalled)
            options["client_kwargs"] = {"timeout": timeout}
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"data.root: {url} cannot be opened ({first_line(error)}); give a URL that fsspec "
            "knows, such as https://, s3:// or gs://, and install its package: "
            "bn-inception[remote] for http and https, s3fs, gcsfs or adlfs beside it for s3, gs "
            "or abfs"
        ) from error
    return filesystem, path
