"""Files at a URL that fsspec understands, fetched once into a local folder and kept there.

The name of a cached file contains its checksum, so all runs and processes of a machine may share
the folder. One process fetches a file while the others that need it wait. Nothing else there is
touched. fsspec is imported when a URL is opened.
"""

import errno
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bn_inception.errors import UserError
from bn_inception.files import file_sha256, first_line, locked, refusing, replacing

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds between the attempts of a fetch
STALLED_SECONDS = 30.0  # after this long without a byte a connection counts as broken
# Seconds that a file may take, and bytes for each further second; slower counts as broken.
FIRST_SECONDS, LEAST_RATE = 60.0, 100_000
# Limits for files whose size no description gives; ImageNet's have 0.1 and 60 MB.
MAX_DESCRIPTION_BYTES, MAX_INDEX_BYTES = 1 << 26, 1 << 33


def fetched(url: str, path: Path, size: int | None, sha256: str) -> str:
    """The local `path` of a remote file, fetched unless it is there; `size` None if unknown."""
    if not _is_whole(path, size, sha256):
        locks = path.parent / "locks"
        with _writing(locks), locked(locks / path.name):
            for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # its writer was killed
                left_over.unlink()
            if not _is_whole(path, size, sha256):
                with replacing(path) as file:
                    _download(url, file.name, size or MAX_INDEX_BYTES, PAUSES, sha256)
    return str(path)


@contextmanager
def fetched_once(url: str, cache: Path) -> Iterator[Path]:
    """A small remote file, removed at the end of the `with` block."""
    with _writing(cache), TemporaryDirectory(dir=cache) as folder:
        path = Path(folder, "description")
        # Few attempts, so that a mistyped address is reported in seconds.
        _download(url, str(path), MAX_DESCRIPTION_BYTES, PAUSES[:2])
        yield path


def _is_whole(path: Path, size: int | None, sha256: str) -> bool:
    if size is None:
        return file_sha256(path) == sha256
    return path.exists() and path.stat().st_size == size


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make a folder of the cache; a UserError where something in it cannot be written."""
    remedy = "free space there, or give another folder"
    with refusing(f"data.cache: {folder} cannot be written", remedy):
        folder.mkdir(parents=True, exist_ok=True)
        yield


def _download(url: str, path: str, limit: int, pauses: Sequence[float], sha256: str = "") -> None:
    """Copy a URL's content to a file, in several attempts; another SHA-256 is a failure.

    UserError: it does not come; OSError: `path` cannot be written.
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
            filesystem.get_file(place, path, callback=Bounded(), **deadline)
            if sha256 and file_sha256(path) != sha256:
                raise ValueError("what came has another SHA-256 than the description says")
            return
        except Exception as error:
            # Every file system has its own exceptions, without a common base class.
            # A failed write has an errno and no file name; a failed opening has both.
            number, name = getattr(error, "errno", None), getattr(error, "filename", None)
            if name == path or number in (errno.ENOSPC, errno.EDQUOT):
                raise
            # HTTP 4xx is final, unless it says "later" or "too many requests".
            status = getattr(error, "status", None)
            final = isinstance(error, FileNotFoundError | PermissionError) or (
                status in range(400, 500) and status not in (408, 425, 429)
            )
            if pause is None or final:
                tried = "" if final else f" after {len(pauses) + 1} tries"
                why = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
                raise UserError(
                    f"data.root: {url} cannot be read{tried} ({why}); check the address, the "
                    "network, your rights and that all files of the split are there, then go on "
                    "with run.resume=must"
                ) from error
            time.sleep(pause)


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; fsspec keeps one for each process and thread."""
    remedy = (
        "give a URL that fsspec knows, such as https://, s3:// or gs://, and install its package: "
        "bn-inception[remote] for http and https, s3fs, gcsfs or adlfs beside it for s3, gs or abfs"
    )
    with refusing(f"data.root: {url} cannot be opened", remedy, ImportError, ValueError):
        import fsspec.core

        options: dict[str, Any] = {}
        if re.match("https?://", url):
            import aiohttp

            # The default allows only five minutes for a whole shard, even if it makes progress.
            stalled = dict.fromkeys(("sock_connect", "sock_read"), STALLED_SECONDS)
            options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, **stalled)}
        found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
        return found
