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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bn_inception.data.description import column_file, file_sha256, read_meta
from bn_inception.data.shards import FileReader, ShardFiles
from bn_inception.errors import UserError
from bn_inception.files import first_line, locked, sync_folder

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds between the tries of a read, about a minute together."""

STALLED_SECONDS = 30.0
"""Without a byte: the connection is taken for broken."""

FIRST_SECONDS, LEAST_RATE = 60.0, 100_000
"""Seconds that a file may take, and bytes for each second more; slower is taken for broken."""

MAX_DESCRIPTION_BYTES, MAX_COLUMN_BYTES = 1 << 26, 1 << 33
"""Sizes that no description tells; ImageNet's are 0.3 and 40 MB."""

_OPENING_TRIES = 3  # a mistyped address is named in seconds; nothing has been done yet


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
        self.folder, self.split, self.cache = url.rstrip("/"), split, Path(cache)
        description = f"{self.folder}/{split}.json"
        with _writing(self.cache), TemporaryDirectory(dir=self.cache) as folder:
            path = Path(folder, f"{split}.json")
            try:
                _download(description, path, MAX_DESCRIPTION_BYTES, PAUSES[: _OPENING_TRIES - 1])
            except FileNotFoundError:
                raise UserError(
                    f"data.root: {self.folder} has no {split}.json: no finished shards; make them "
                    "with bn-inception prepare source=IMAGES target=FOLDER and copy the folder "
                    "there"
                ) from None
            self.meta = read_meta(path, split, description)

    def column(self, name: str) -> str:
        """Local path of a column's file; it is fetched where it is missing."""
        digest = self.meta.index_sha256[name]
        path = self.cache / f"{self.split}.{name}.{digest[:16]}.npy"
        _fetch(f"{self.folder}/{column_file(self.split, name)}", path, None, digest)
        return str(path)

    def shards(self) -> list[str]:
        """URLs of the shards."""
        return [f"{self.folder}/{file}" for file in self.meta.shard_files()]

    def reader(self) -> FileReader:
        """Reads the shards; each is fetched before it is opened."""
        return FileReader(self.shards(), self._fetched)

    def _fetched(self, shard: int) -> str:
        size, sha256 = self.meta.shard_bytes[shard], self.meta.shard_sha256[shard]
        path = self.cache / f"{self.split}-{shard:06d}.{sha256[:16]}.tar"
        _fetch(self.shards()[shard], path, size, sha256)
        return str(path)


class _Differs(Exception):
    """What came is not what was asked for."""


def _fetch(url: str, path: Path, size: int | None, sha256: str) -> None:
    """Copy a remote file to `path`, unless it is there; one process does, others wait for it.

    Its `size` is None where nothing tells it.

    Raises:
        UserError: it cannot be had, or differs at every try; the cache cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with _writing(path.parent / "locks") as locks, locked(locks / path.name):
        with suppress(FileNotFoundError):
            whole = file_sha256(path) == sha256 if size is None else path.stat().st_size == size
            if whole:
                return
        try:
            _download(url, part, size or MAX_COLUMN_BYTES, PAUSES, sha256)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except FileNotFoundError as error:
            raise UserError(
                f"data.root: {url} does not exist; copy all files of the split there, then go on "
                "with run.resume=must"
            ) from error
        finally:
            part.unlink(missing_ok=True)  # the lock's holder alone has written it
        sync_folder(path.parent)


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Make a folder of the cache; say in one line where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise UserError(
            f"data.cache: {folder} cannot be written ({first_line(error)}); free space there, or "
            "give another folder"
        ) from error


def _download(
    url: str, path: Path, limit: int, pauses: tuple[float, ...], sha256: str = ""
) -> None:
    """Copy a URL's content to a new file; where that fails, again after growing pauses.

    More than `limit` bytes, too slow a copy, or another SHA-256, if one is given, is a failure.

    Raises:
        FileNotFoundError: nothing lies there.
        UserError: it fails for good: forbidden, or broken at every try.
        OSError: `path` cannot be written.
    """
    for pause in (*pauses, None):
        try:
            _copy(url, path, limit)
            if sha256 and file_sha256(path) != sha256:
                raise _Differs(
                    f"the {path.stat().st_size:,} bytes that came have another SHA-256 than the "
                    "description says"
                )
            return
        except (UserError, FileNotFoundError):
            raise
        except Exception as error:
            # Every file system has exceptions of its own; what they share is no base class.
            # A full disk has an errno and no name, where a write fails; opening has both.
            if isinstance(error, OSError) and (
                error.filename == str(path) or error.errno in (errno.ENOSPC, errno.EDQUOT)
            ):
                raise
            final = isinstance(error, PermissionError) or _is_refusal(error)
            if pause is None or final:
                tried = "" if final else f" after {len(pauses) + 1} tries"
                raise UserError(
                    f"data.root: {url} cannot be read{tried} ({_reason(error)}); check the "
                    "address, the network and your rights there, then go on with run.resume=must"
                ) from error
            time.sleep(pause)


def _is_refusal(error: Exception) -> bool:
    """Whether a server answered that it will not (HTTP 4xx), but for "later" and "too many"."""
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, _Differs) else f"{type(error).__name__}: {text}".rstrip(": ")


def _copy(url: str, path: Path, limit: int) -> None:
    """One try of `_download`; raises whatever the file system has for what went wrong."""
    filesystem, place = _filesystem(url)
    import fsspec.callbacks

    seconds = FIRST_SECONDS + limit / LEAST_RATE
    until = time.monotonic() + seconds

    class Bounded(fsspec.callbacks.Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > limit:
                raise _Differs(f"more than {limit:,} bytes came")
            if time.monotonic() > until:
                raise _Differs(f"{self.value:,} bytes came, too slowly")

    # A server that says nothing, or a byte now and then, is not waited for.
    deadline = {"timeout": seconds} if getattr(filesystem, "async_impl", False) else {}
    filesystem.get_file(place, str(path), callback=Bounded(), **deadline)


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
            stalled = {"sock_connect": STALLED_SECONDS, "sock_read": STALLED_SECONDS}
            timeout = aiohttp.ClientTimeout(total=None, **stalled)
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
