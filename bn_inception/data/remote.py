"""Shards below a URL that fsspec knows: fetched whole, once, into a local folder, and kept there.

A file in the cache is named by its checksum: a name stands for one content for ever, whatever lies
at the URL later, so all runs and processes of a machine may share the folder. One process fetches
a file while the others that need it wait. Nothing but these files is written or removed there.
fsspec is imported in this module alone, and only once a URL is opened.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bn_inception.data.description import column_file, file_sha256, parse_meta
from bn_inception.data.shards import FileReader, ShardFiles
from bn_inception.errors import UserError
from bn_inception.files import first_line, locked, sync_folder

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds between the tries of a read, about a minute together."""

STALLED_SECONDS = 30.0
"""Without a byte: the connection is taken for broken."""

LEAST_RATE = 100_000
"""Bytes a second, in the mean of a file beyond the first minute: less is taken for broken."""

MAX_DESCRIPTION_BYTES, MAX_COLUMN_BYTES = 1 << 26, 1 << 33
"""Sizes that no description tells; ImageNet's are 0.3 and 40 MB."""

FIRST_SECONDS = 60.0
_OPENING_PAUSES = 2  # a mistyped address is named in seconds; nothing has been done yet


class RemoteShardFiles(ShardFiles):
    """The files of one split below a URL.

    Args:
        cache: folder for what is fetched, on a local disk: its locks do not hold between machines.
        url: where `bn-inception prepare`'s folder lies.
        split: "train" or "val".

    Raises:
        UserError: the URL cannot be read, or what lies there is no split.
    """

    def __init__(self, cache: str, url: str, split: str) -> None:
        self.folder, self.split, self.cache = url.rstrip("/"), split, cache
        description = f"{self.folder}/{split}.json"
        with _writing(cache), TemporaryDirectory(dir=_made(cache)) as folder:
            path = f"{folder}/{split}.json"
            try:
                _download(description, path, MAX_DESCRIPTION_BYTES, PAUSES[:_OPENING_PAUSES])
            except _Missing:
                raise UserError(
                    f"data.root: {self.folder} has no {split}.json: no finished shards; make them "
                    "with bn-inception prepare source=IMAGES target=FOLDER and copy the folder "
                    "there"
                ) from None
            self.meta = parse_meta(Path(path).read_bytes(), split, description)

    def column(self, name: str) -> str:
        """Local path of a column's file; it is fetched where it is missing."""
        digest = self.meta.index_sha256[name]
        path = f"{self.cache}/{self.split}.{name}.{digest[:16]}.npy"
        _fetch(f"{self.folder}/{column_file(self.split, name)}", path, None, digest)
        return path

    def shards(self) -> list[str]:
        """URLs of the shards."""
        return [f"{self.folder}/{file}" for file in self.meta.shard_files()]

    def reader(self) -> "CachedReader":
        """Reads the shards, which are fetched when they are first read."""
        return CachedReader(self)


class CachedReader:
    """Reads pieces of remote shards; see `shards.Reader`.

    Args:
        files: of the split.
    """

    def __init__(self, files: RemoteShardFiles) -> None:
        self._urls, meta = files.shards(), files.meta
        self._expected = list(zip(meta.shard_bytes, meta.shard_sha256, strict=True))
        names = (f"{files.split}-{n:06d}.{d[:16]}.tar" for n, d in enumerate(meta.shard_sha256))
        self._paths = [f"{files.cache}/{name}" for name in names]
        self._here = FileReader(self._paths)

    def path(self, file: int) -> str:
        """A shard's URL."""
        return self._urls[file]

    def read(self, file: int, offset: int, length: int) -> bytes:
        """`length` bytes of a shard from `offset` on.

        Raises:
            UserError: the shard cannot be fetched, or the local disk fails: no image is to blame.
        """
        path, (size, sha256) = self._paths[file], self._expected[file]
        try:
            if not _is_whole(path, size, sha256):
                self._here.close()  # of a file that was not whole
                _fetch(self._urls[file], path, size, sha256)
            return self._here.read(file, offset, length)
        except OSError as error:
            raise UserError(
                f"data.cache: {path} cannot be read ({first_line(error)}); check the disk, or "
                "give another folder"
            ) from error


class _Missing(UserError):
    """There is no such file."""


class _Differs(Exception):
    """What came is not what was asked for."""


def _fetch(url: str, path: str, size: int | None, sha256: str) -> None:
    """Copy a remote file to `path`, unless it is there; one process does, others wait for it.

    Args:
        url: where it lies.
        path: in the cache.
        size: bytes; None where nothing tells.
        sha256: of the content.

    Raises:
        UserError: it cannot be had, or differs at every try; the cache cannot be written.
    """
    part, folder = f"{path}.part", Path(path).parent

    def check() -> None:
        found = os.path.getsize(part)
        if size is not None and found != size:
            raise _Differs(f"{found:,} bytes came, not {size:,}")
        if file_sha256(part) != sha256:
            raise _Differs("the bytes that came have another SHA-256 than the description says")

    with _writing(folder), locked(Path(_made(folder / "locks"), Path(path).name)):
        if _is_whole(path, size, sha256):
            return
        try:
            _download(url, part, size or MAX_COLUMN_BYTES, PAUSES, check)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)  # the lock's holder alone has written it
        sync_folder(folder)


def _is_whole(path: str, size: int | None, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256 if size is None else os.stat(path).st_size == size
    except FileNotFoundError:
        return False


def _made(folder: str | Path) -> str:
    os.makedirs(folder, exist_ok=True)
    return str(folder)


@contextmanager
def _writing(cache: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"data.cache: {cache} cannot be written ({first_line(error)}); free space there, or "
            "give another folder"
        ) from error


def _download(
    url: str,
    path: str,
    limit: int,
    pauses: tuple[float, ...],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Copy a URL's content to a new file; where that fails, again after growing pauses.

    Args:
        url: where it lies.
        path: overwritten.
        limit: bytes; more, or too slow a copy, is an error.
        pauses: seconds between the tries.
        check: raises `_Differs` where the file is not what it should be.

    Raises:
        UserError: it fails for good: missing, forbidden, or broken at every try.
        OSError: `path` cannot be written.
    """
    for pause in (*pauses, None):
        try:
            _copy(url, path, limit)
            check()
            return
        except UserError:
            raise
        except Exception as error:
            # Every file system has exceptions of its own; what they share is no base class.
            # A full disk has an errno and no name, where a write fails; opening has both.
            if isinstance(error, OSError) and (
                error.filename == path or error.errno in (errno.ENOSPC, errno.EDQUOT)
            ):
                raise
            if isinstance(error, FileNotFoundError):
                raise _Missing(
                    f"data.root: {url} does not exist; copy all files of the split there, then go "
                    "on with run.resume=true"
                ) from error
            if pause is not None and not _is_final(error):
                time.sleep(pause)
                continue
            tried = "" if _is_final(error) else f" after {len(pauses) + 1} tries"
            raise UserError(
                f"data.root: {url} cannot be read{tried} ({_reason(error)}); check the address, "
                "the network and your rights there, then go on with run.resume=true"
            ) from error


def _is_final(error: Exception) -> bool:
    """Whether a server answered that it will not (HTTP 4xx), but for "later" and "too many"."""
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500
    return isinstance(error, PermissionError) or (refused and status not in (408, 425, 429))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, _Differs) else f"{type(error).__name__}: {text}".rstrip(": ")


def _copy(url: str, path: str, limit: int) -> None:
    """One try of `_download`; raises whatever the file system has for what went wrong."""
    seconds = FIRST_SECONDS + limit / LEAST_RATE
    filesystem, place = _filesystem(url)
    # A server that says nothing, or a byte now and then, is not waited for.
    deadline = {"timeout": seconds} if getattr(filesystem, "async_impl", False) else {}
    callback = _bounded(limit, time.monotonic() + seconds)
    filesystem.get_file(place, path, callback=callback, **deadline)


def _bounded(limit: int, until: float) -> Any:
    """A callback that ends a download that is longer, or takes longer, than it may."""
    import fsspec.callbacks

    class Bounded(fsspec.callbacks.Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > limit:
                raise _Differs(f"more than {limit:,} bytes came")
            if time.monotonic() > until:
                raise _Differs(f"{self.value:,} bytes came, too slowly")

    return Bounded()


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; fsspec keeps one a process and thread.

    Raises:
        UserError: a package is missing, or there is no such protocol.
    """
    try:
        import fsspec.core

        options: dict[str, Any] = {}
        if re.match("https?://", url):
            import aiohttp

            # Its default allows five minutes for a whole shard, however well it comes along.
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=STALLED_SECONDS, sock_read=STALLED_SECONDS
            )
            options["client_kwargs"] = {"timeout": timeout}
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise UserError(
            f"data.root: {url} needs a package that is not installed ({_reason(error)}); install "
            "bn-inception[remote] for http and https, and s3fs, gcsfs or adlfs beside it for s3, "
            "gs or abfs"
        ) from error
    except ValueError as error:
        raise UserError(
            f"data.root: {url} cannot be opened ({_reason(error)}); give a URL that fsspec knows, "
            "such as https://, s3:// or gs://"
        ) from error
    return filesystem, path
