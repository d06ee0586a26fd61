"""Shards on remote storage: any fsspec URL, read through a bounded local cache.

The description is read at every opening. The index is fetched once; held-out shards are fetched
whole and stay, because held-out images are read in the order of their indices and so from all
shards at once. Training shards are fetched whole as well, ahead, in the order in which the epoch
will read them: a shard that a run is done with is the one it needs again the latest, and so the
first to make room (`data.cache`).

Nothing depends on reading ahead but time: a read that does not find its shard fetches it, and only
there does a broken connection become an error. fsspec is imported in this module alone, and only
once a URL is opened.
"""

import errno
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from ctypes import c_int64
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bn_inception.data.cache import FileCache, Outcome, Plan
from bn_inception.data.order import TrainingOrder, stored_order
from bn_inception.data.shards import (
    ShardMeta,
    ShardReader,
    ShardSource,
    file_sha256,
    parse_meta,
    read_piece,
    shard_file,
)
from bn_inception.errors import UserError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds between the tries of a read, about a minute together. Reading ahead pauses alike."""
STREAMS = 4
"""Shards that a process fetches ahead at the same time: one connection does not fill a network."""

_STALLED_SECONDS = 30.0  # without a byte: the connection is taken for broken
_POLL_SECONDS = 0.2
_OPENING_TRIES = (
    3  # a mistyped address is named in seconds; nothing has been done that could be lost
)
_GIB = 1 << 30

T = TypeVar("T")


def is_url(root: str | None) -> bool:
    """Whether `data.root` is a URL and no folder."""
    return root is not None and "://" in root


class RemoteFile(NamedTuple):
    """A file to be fetched.

    Attributes:
        url: where it lies.
        name: in the cache; holds the checksum.
        size: bytes; 0 where the description does not tell.
        sha256: of the content.
    """

    url: str
    name: str
    size: int
    sha256: str


class Needs(NamedTuple):
    """What reading in an order takes, in bytes of shards.

    Attributes:
        every: of all shards that hold an image, each once.
        epoch: fetched in an epoch where only what is read at once can be kept.
        at_once: that the images in flight lie in, at most.
    """

    every: int
    epoch: int
    at_once: int

    @classmethod
    def of(
        cls, shard: NDArray[Any], sizes: NDArray[np.int64], shard_size: int, in_flight: int
    ) -> "Needs":
        """Compute them for a shuffled order.

        Args:
            shard: stored shard of every image, shape (images,).
            sizes: bytes of every stored shard, shape (shards,).
            shard_size: images in a shard of the order.
            in_flight: images that are read at once.
        """
        images = len(shard)
        size = min(shard_size, images)
        blocks = np.arange(images) // size
        touched = np.unique(blocks * len(sizes) + shard[stored_order(images)])
        touching = sizes[touched % len(sizes)]
        by_block = np.bincount(touched // len(sizes), weights=touching)
        # A window of images lies in as many of the order's shards, one more where it straddles
        # their ends, and one more where the last shard is short.
        window = 1 + math.ceil((in_flight - 1) / size) + bool(images % size)
        every = int(sizes[np.unique(shard)].sum())
        return cls(every, int(touching.sum()), min(every, int(np.sort(by_block)[-window:].sum())))


class RemoteShards(ShardSource):
    """The images of one split's shards below a URL.

    Args:
        url: where `bn-inception prepare`'s folder lies.
        split: "train" or "val".
        first_classes: only the first N classes; None for all.
        cache: what is fetched lies there.

    Raises:
        UserError: the URL cannot be read, or what lies there is no split.
    """

    def __init__(self, url: str, split: str, first_classes: int | None, cache: FileCache) -> None:
        self._cache = cache
        self._plan: Plan | None = None
        self._kept: RemoteShards | None = None
        super().__init__(url.rstrip("/"), split, first_classes)

    def __reduce__(self) -> tuple[type["RemoteShards"], tuple[Any, ...]]:
        return RemoteShards, (*self._arguments, self._cache)

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """The shards."""
        url, split, _ = self._arguments
        files = (shard_file(split, shard) for shard in range(len(self.meta.shard_bytes)))
        sizes, digests = self.meta.shard_bytes, self.meta.shard_sha256
        return tuple(
            RemoteFile(f"{url}/{file}", f"{file.removesuffix('.tar')}.{digest[:16]}.tar", *rest)
            for file, digest, rest in zip(
                files, digests, zip(sizes, digests, strict=True), strict=True
            )
        )

    def read_beside(self, held_out: "RemoteShards") -> None:
        """Let no shard of `held_out` make room for those of this split, while this process lives.

        Raises:
            UserError: the cache does not hold them and one shard.
        """
        needed = sum(held_out.meta.shard_bytes) + max(self.meta.shard_bytes)
        if needed > self._cache.limit:
            raise UserError(
                f"data.cache_gib: {_gib(self._cache.limit)} is too small for the held-out shards, "
                f"which stay in {self._cache.folder}, and one training shard; set "
                f"data.cache_gib={_gib(needed)} or more"
            )
        self._kept = held_out
        self._plan = self._cache.plan()
        self._plan.write({file.name: 0 for file in held_out.files})

    def check_order(self, shard_size: int, in_flight: int) -> str:
        """Whether the cache holds what this order reads at once.

        Images of one of the order's shards are read in any order, so that all stored shards they
        lie in are needed at once. Where the order's shards are the stored ones that is one.

        Args:
            shard_size: the order's, in images.
            in_flight: images that are being read at once.

        Returns:
            A warning, or nothing.

        Raises:
            UserError: it does not; what it would need is named.
        """
        sizes = np.array(self.meta.shard_bytes, np.int64)
        needs = Needs.of(self._shard[: len(self)], sizes, shard_size, in_flight)
        whole = 0 if self._kept is None else sum(self._kept.meta.shard_bytes)
        stored, limit = self.meta.shard_size, self._cache.limit
        other = "" if shard_size % stored == 0 else f", or order.shard_size={stored} (as stored)"
        if whole + needs.at_once > limit:
            raise UserError(
                f"data.cache_gib: {_gib(limit)} is too small: {_gib(needs.at_once)} GiB of "
                f"training shards are read at once with order.shard_size={shard_size}, and "
                f"{_gib(whole)} GiB of held-out shards stay; set "
                f"data.cache_gib={_gib(whole + needs.at_once)} or more{other}"
            )
        times = needs.epoch / needs.every
        if times > 1 and whole + needs.every > limit:
            why = "the first classes lie in all of them"
            if other:
                why = f"order.shard_size={shard_size} is no multiple of their {stored} images"
            return (
                f"data.root: an epoch fetches every shard {times:.1f} times, because {why}; set "
                f"data.cache_gib={_gib(whole + needs.every)} to keep all{other}"
            )
        return ""

    def reading(
        self,
        order: TrainingOrder,
        start_step: int,
        in_flight: int,
        batches: Generator[T, None, None],
    ) -> Generator[T, None, None]:
        """Pass `batches` on while a process of its own fetches ahead of them.

        Args:
            order: of the images of the batches.
            start_step: of the first batch.
            in_flight: batches that may be read at once.
            batches: one for each step; closed at the end.

        Raises:
            UserError: the cache is too small for this order.
        """
        self.check_order(order.shard_size, in_flight * order.batch_size)
        # Forked before the batches' workers are, and a process, not a thread: nothing of fsspec
        # lives in the process that trains and forks, nor takes its time.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        position = context.RawValue(c_int64, start_step)
        process = context.Process(
            target=_read_ahead,
            args=(_Ahead(self, order, in_flight), position, os.getpid()),
            daemon=True,
        )
        process.start()
        try:
            with closing(batches):
                for step, batch in enumerate(batches, start_step):
                    position.value = step + 1
                    yield batch
        finally:
            process.kill()
            process.join()
            with suppress(UserError):
                self._cache.open()  # removes the parts that it was at

    # Where the files are.

    def _read_meta(self) -> ShardMeta:
        url, split, _ = self._arguments
        return parse_meta(_read_description(url, split), split, f"{url}/{split}.json")

    def _column_path(self, name: str) -> str:
        url, split, _ = self._arguments
        digest = self.meta.index_sha256[name]
        file = RemoteFile(
            f"{url}/{split}.index/{name}.npy", f"{split}.{name}.{digest[:16]}.npy", 0, digest
        )
        self._cache.obtain(file.name, file.size, lambda path: fetch(file, path))
        return self._cache.path(file.name)

    def _check_shards(self) -> None:
        """Sizes are checked when a shard is fetched."""

    def _reader(self) -> ShardReader:
        return _CachedReader(self._cache, self.files)


class _CachedReader:
    """Reads pieces of remote shards; a shard that is not in the cache is fetched.

    No file stays open: one that is removed from the cache would keep its space on the disk.
    """

    def __init__(self, cache: FileCache, files: Sequence[RemoteFile]) -> None:
        self._cache = cache
        self._files = tuple(files)

    def path(self, file: int) -> str:
        """A shard's URL."""
        return self._files[file].url

    def read(self, file: int, offset: int, length: int) -> bytes:
        """`length` bytes of a shard from `offset` on.

        Raises:
            UserError: the shard cannot be fetched, or the local disk fails: no image is to blame.
        """
        wanted = self._files[file]
        path = self._cache.path(wanted.name)
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if os.fstat(descriptor).st_size == wanted.size:
                        return read_piece(descriptor, offset, length, path)
                finally:
                    os.close(descriptor)
                os.unlink(path)  # not as this package leaves it
            except FileNotFoundError:
                pass
            except OSError as error:
                raise UserError(
                    f"data.cache: {path} cannot be read ({error.strerror or error}); check the "
                    "disk, or give another folder"
                ) from error
            # Unless it has to make room again meanwhile, it is there the next time.
            self._cache.obtain(wanted.name, wanted.size, lambda path: fetch(wanted, path))


class ReadingSequence:
    """The order in which an epoch's images touch the shards.

    Args:
        order: of the images.
        shard: number of the shard of every image, shape (images,).
    """

    def __init__(self, order: TrainingOrder, shard: NDArray[np.int32]) -> None:
        self._order = order
        self._shard = shard
        self._epochs: OrderedDict[int, tuple[NDArray[np.int64], list[int]]] = OrderedDict()

    def upcoming(self, step: int, in_flight: int) -> tuple[list[int], int]:
        """All shards by when they are read next, from the batch of `step` on.

        Returns:
            Their numbers, each once, and how many of the first of them the batches of the
            `in_flight` steps from `step` on lie in.
        """
        start = step * self._order.batch_size
        stop = start + in_flight * self._order.batch_size
        # The rest of this epoch and the whole next one hold every shard.
        epoch = start // self._order.images
        everything = self._touched(start, (epoch + 2) * self._order.images)
        return everything, len(self._touched(start, stop))

    def _touched(self, start: int, stop: int) -> list[int]:
        """Shards of the images at positions `start` to `stop` - 1, each once, in order."""
        images = self._order.images
        found: dict[int, None] = {}
        for epoch in range(start // images, -(-stop // images)):
            starts, shards = self._runs(epoch)
            first = max(0, start - epoch * images)
            begin = int(np.searchsorted(starts, first, "right")) - 1
            end = int(np.searchsorted(starts, stop - epoch * images))
            found.update(dict.fromkeys(islice(shards, begin, end)))
            if epoch > start // images and end == len(starts):
                break  # a whole epoch: there are no others
        return list(found)

    def _runs(self, epoch: int) -> tuple[NDArray[np.int64], list[int]]:
        """Where in the epoch images of another shard begin, and which shard that is."""
        if epoch not in self._epochs:
            while len(self._epochs) >= 2:
                self._epochs.popitem(last=False)
            shards = self._shard[self._order.epoch(epoch)]
            starts = np.flatnonzero(np.concatenate([[True], shards[1:] != shards[:-1]]))
            self._epochs[epoch] = starts, shards[starts].tolist()
        return self._epochs[epoch]


def _read_ahead(ahead: "_Ahead", position: Any, parent: int) -> None:
    """What the process that fetches ahead does, until it is killed or its parent is gone.

    Args:
        ahead: what it fetches.
        position: the step whose batch is taken next, shared with the parent.
        parent: its number.
    """
    # The main process answers signals. What ends this one early costs time and nothing else.
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    ahead.start()
    for _ in range(STREAMS):
        threading.Thread(target=ahead.stream, daemon=True).start()
    while os.getppid() == parent:
        began = time.monotonic()
        ahead.move_to(int(position.value))
        # Where shards change with every image this takes longer, and is done less often.
        time.sleep(max(_POLL_SECONDS, 5 * (time.monotonic() - began)))
    os._exit(0)


class _Ahead:
    """Which shards are wanted next, told to the cache and to the streams that fetch them."""

    def __init__(self, source: RemoteShards, order: TrainingOrder, in_flight: int) -> None:
        self._files = source.files
        self._kept = () if source._kept is None else source._kept.files
        self._cache = source._cache
        self._sequence = ReadingSequence(order, source._shard)
        self._in_flight = in_flight
        self._plan: Plan | None = None
        self._step = -1
        self._ranks: Mapping[str, int] = {}
        self._wanted: tuple[tuple[RemoteFile, int], ...] = ()

    def start(self) -> None:
        """Say to the cache from now on, in this process's name, what is needed."""
        self._plan = self._cache.plan()

    def move_to(self, step: int) -> None:
        """Note that all batches before that of `step` have been read."""
        assert self._plan is not None
        if step == self._step:
            return
        self._step = step
        shards, soon = self._sequence.upcoming(step, self._in_flight)
        files = [self._files[shard] for shard in shards]
        ranks = {file.name: max(0, place - soon + 1) for place, file in enumerate(files)}
        if ranks == self._ranks:
            return
        self._plan.write(ranks)
        self._ranks = ranks
        training = [(file, ranks[file.name]) for file in files]
        first = soon + STREAMS
        held_out = [(file, 0) for file in self._kept]
        self._wanted = (*training[:first], *held_out, *training[first:])

    def stream(self) -> None:
        """Fetch one wanted shard after the other, for ever."""
        failures = 0
        while True:
            try:
                fetched = self._fetch_next()
                failures = 0
            except UserError:  # who needs the shard tries again, and says it
                time.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
                continue
            if not fetched:
                time.sleep(_POLL_SECONDS)

    def _fetch_next(self) -> bool:
        """Fetch the first wanted shard that is not here and that nobody fetches."""
        present = self._cache.names()
        lowest_full: float = math.inf
        for file, rank in self._wanted:
            if file.name in present or rank >= lowest_full:
                continue

            def once(path: str, file: RemoteFile = file) -> None:
                fetch(file, path, tries=1)

            outcome = self._cache.fetch(file.name, file.size, rank, once, wait=False)
            if outcome is Outcome.here:
                return True
            if outcome is not Outcome.busy:
                lowest_full = rank
        return False


def fetch(file: RemoteFile, path: str, tries: int | None = None) -> None:
    """Copy a remote file and check it.

    Args:
        file: which.
        path: where to; overwritten.
        tries: None is one more than there are `PAUSES`.

    Raises:
        UserError: it cannot be had, or is not what the description says.
        OSError: `path` cannot be written.
    """

    def copy(filesystem: Any, place: str) -> None:
        filesystem.get_file(place, path, callback=_bounded(file.size))
        found = os.path.getsize(path)
        if file.size and found != file.size:
            raise _Differs(f"{found:,} bytes came, not {file.size:,}")
        if file_sha256(path) != file.sha256:
            raise _Differs("the bytes that came have another SHA-256 than the description says")

    _retried(file.url, copy, tries, path)


class _Differs(Exception):
    """What came is not what was asked for."""


def _read_description(url: str, split: str) -> bytes:
    def read(filesystem: Any, place: str) -> bytes:
        text: bytes = filesystem.cat_file(place)
        return text

    try:
        return _retried(f"{url}/{split}.json", read, _OPENING_TRIES, None)
    except _Missing:
        raise UserError(
            f"data.root: {url} has no {split}.json: no finished shards; make them with "
            "bn-inception prepare source=IMAGES target=FOLDER and copy the folder there"
        ) from None


class _Missing(UserError):
    """There is no such file."""


def _retried(
    url: str, action: Callable[[Any, str], T], tries: int | None, written: str | None
) -> T:
    """Do `action` with a URL's file system and path there, again after growing pauses.

    Raises:
        UserError: it fails for good: missing, forbidden, or broken at every try.
        OSError: the local file `written` cannot be.
    """
    pauses = PAUSES if tries is None else PAUSES[: tries - 1]
    for pause in (*pauses, None):
        try:
            return action(*_filesystem(url))
        except UserError:
            raise
        except Exception as error:
            # Every file system has exceptions of its own; what they share is no base class.
            if isinstance(error, OSError) and written is not None and _is_local(error, written):
                raise
            if isinstance(error, FileNotFoundError):
                raise _Missing(
                    f"data.root: {url} does not exist; copy all files of the split there, then go "
                    "on with run.resume=true"
                ) from error
            for_good = isinstance(error, PermissionError) or _is_refusal(error)
            if pause is not None and not for_good:
                time.sleep(pause)
                continue
            tried = "" if for_good else f" after {len(pauses) + 1} tries"
            raise UserError(
                f"data.root: {url} cannot be read{tried} ({_reason(error)}); check the address, "
                "the network and your rights there, then go on with run.resume=true"
            ) from error
    raise AssertionError("the last try returns or raises")


def _is_local(error: OSError, written: str) -> bool:
    # A full disk has an errno and no name, where a write fails; opening has both. Connections have
    # other errnos.
    return error.filename == written or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_refusal(error: Exception) -> bool:
    """Whether a server answered that it will not (HTTP 4xx), but for "later" and "too many"."""
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, _Differs) else f"{type(error).__name__}: {text}".rstrip(": ")


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; fsspec keeps one a process and thread.

    Raises:
        UserError: a package is missing, or there is no such protocol.
    """
    protocol = url.partition("://")[0]
    try:
        import fsspec.core

        options: dict[str, Any] = {}
        if protocol in ("http", "https"):
            import aiohttp

            # Its default allows five minutes for a whole shard, however well it comes along.
            options["client_kwargs"] = {
                "timeout": aiohttp.ClientTimeout(
                    total=None, sock_connect=_STALLED_SECONDS, sock_read=_STALLED_SECONDS
                )
            }
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


def _bounded(size: int) -> Any:
    """A callback that ends a download that is longer than it may be."""
    import fsspec.callbacks

    class Bounded(fsspec.callbacks.Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if size and self.value > size:
                raise _Differs(f"more than {size:,} bytes came")

    return Bounded()


def _gib(size: int) -> str:
    """Bytes as GiB, rounded up, for a setting that is to be enough."""
    value = size / _GIB
    digits = 10 ** max(2, 3 - math.floor(math.log10(value))) if value > 0 else 1
    return f"{math.ceil(value * digits) / digits:.10f}".rstrip("0").rstrip(".")
