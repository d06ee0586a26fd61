"""Batches of decoded, cut images, read by worker processes.

What a batch holds is a pure function of its request (step, or a range of indices), so it is the
same bit for bit with any number of workers, none included. Workers take the distortion's factors
along; `photometric.to_input` applies them on the device.
"""

import atexit
import functools
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bn_inception.data import shared_memory
from bn_inception.data.backend import Backend, open_picture
from bn_inception.data.crops import Picture, cut_single, cut_training
from bn_inception.data.decode import UnreadableImage
from bn_inception.data.order import Draws, TrainingOrder
from bn_inception.data.parallel import cores
from bn_inception.data.photometric import AugmentationConfig, Photometric, draw_factors
from bn_inception.data.remote import RemoteShards
from bn_inception.data.source import ImageSource, OnError
from bn_inception.errors import UserError

# Unreadable images in a row that `skip` passes over before it gives up: single files are damaged,
# a hundred neighbours are a disk or a network that is gone.
MAX_SKIPPED = 100

_MAX_DEFAULT_WORKERS = 16
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

T = TypeVar("T")
R = TypeVar("R")
TrainingRequest = tuple[int, NDArray[np.int64], NDArray[np.int64]]
"""Step, and the epoch and index of each image."""


class TrainingBatch(NamedTuple):
    """One step's images.

    Attributes:
        images: uint8 (N, 3, S, S), in channels_last memory.
        factors: float32 (N, K), for `photometric.to_input`.
        labels: int64 (N,).
        replaced: (identity, reason) of every unreadable image whose place the next readable one
            took; the identity holds no path of this machine.
    """

    images: Tensor
    factors: Tensor
    labels: Tensor
    replaced: list[tuple[str, str]]


class ValidationBatch(NamedTuple):
    """Consecutive held-out images; the last batch may be smaller.

    Attributes:
        images: uint8 (N, 3, S, S), in channels_last memory; zeros where unreadable.
        labels: int64 (N,).
        readable: bool (N,); an unreadable image stays in the batch, to be counted as an error.
        unreadable: (name, reason) of each that is not readable.
    """

    images: Tensor
    labels: Tensor
    readable: Tensor
    unreadable: list[tuple[str, str]]


def training_batches(
    source: ImageSource,
    order: TrainingOrder,
    *,
    start_step: int,
    stop_step: int,
    image_size: int,
    augmentation: AugmentationConfig,
    seed: int,
    workers: int | None,
    on_error: OnError,
    backend: Backend = Backend.pillow,
    places: slice = slice(None),
) -> Generator[TrainingBatch, None, None]:
    """The batches of steps `start_step` to `stop_step` - 1, in order.

    Workers start at the first `next` and stop when the iterator ends, fails or is closed.

    Args:
        source: training images.
        order: which images a step holds; made for `len(source)` images.
        image_size: S in pixels.
        seed: the run's, for crops, mirrors, filters and distortion.
        workers: processes; 0 reads in this one, None is `default_workers()`.
        on_error: `skip` puts the next readable image (cyclic, with its own label, with the draws
            of the place it takes) where one cannot be read.
        backend: who decodes and resizes; the draws are the same.
        places: the part of every batch that is read, so that processes can share a batch; an image
            is the same whoever reads it.

    Raises:
        UserError: an image cannot be read and `on_error` is fail, or too many in a row; a worker
            died.
    """
    assert order.images == len(source)
    requests = (_request(order, step, places) for step in range(start_step, stop_step))
    images = _TrainingImages(source, image_size, augmentation.photometric, seed, on_error, backend)
    here = len(range(order.batch_size)[places])
    batches = produced(images, requests, workers, shared_memory.batch_bytes(here, image_size))
    if isinstance(source, RemoteShards):
        return source.reading(order, start_step, batches_in_flight(workers), batches)
    return batches


def validation_batches(
    source: ImageSource,
    *,
    image_size: int,
    batch: int,
    workers: int | None,
    on_error: OnError,
    backend: Backend = Backend.pillow,
    share: tuple[int, int] = (0, 1),
) -> Generator[ValidationBatch, None, None]:
    """Every image of `source` exactly once, in its order, `batch` at a time, the tail included.

    Args:
        source: held-out images.
        image_size: S in pixels of the single centre crop.
        batch: images in a batch.
        workers: processes; 0 reads in this one, None is `default_workers()`.
        on_error: `skip` leaves an unreadable image in the batch, marked.
        backend: who decodes and resizes.
        share: (rank, size) of the process: it reads its part of the images, see `shared_ranges`.

    Raises:
        UserError: an image cannot be read and `on_error` is fail; a worker died; fewer images
            than processes.
    """
    ranges = iter(shared_ranges(len(source), batch, *share))
    images = _ValidationImages(source, image_size, on_error, backend)
    # One more image than `batch` may be in a part's last one.
    return produced(images, ranges, workers, shared_memory.batch_bytes(batch + 1, image_size))


def _request(order: TrainingOrder, step: int, places: slice) -> TrainingRequest:
    epochs, indices = order.batch(step)
    return step, epochs[places], indices[places]


def shared_ranges(images: int, batch: int, rank: int, size: int) -> list[range]:
    """Divide the indices 0 to `images` - 1 among `size` processes and cut one's part into batches.

    Over all ranks every index occurs exactly once: nothing is padded, no tail is dropped. Every
    rank has the same number of batches, so that they can meet after each. The last batch of a rank
    is what is left: at most `batch`, and one image more where the parts differ by one.

    Raises:
        UserError: fewer images than processes.
    """
    if images < size:
        raise UserError(
            f"validation images: {images} cannot be divided among {size} processes; use fewer"
        )
    start, stop = images * rank // size, images * (rank + 1) // size
    batches = -(-(images // size) // batch)
    cuts = [start + batch * number for number in range(batches)] + [stop]
    return [range(*pair) for pair in itertools.pairwise(cuts)]


def default_workers(processes: int = 1) -> int:
    """Processes for reading, of each of `processes` that train on this machine.

    Cores are divided evenly; of its share a process keeps one for itself, which on a GPU launches
    the kernels, and uses no more than 16 for reading. Two cores and one process: 1; one core: 0.
    """
    return max(0, min(cores() // processes - 1, _MAX_DEFAULT_WORKERS))


def batches_in_flight(workers: int | None) -> int:
    """Batches that are asked for and not yet taken, at most; `workers` as elsewhere here."""
    return max(
        1, (default_workers() if workers is None else workers) * shared_memory.PREFETCHED_BATCHES
    )


@dataclass(frozen=True)
class _Failed:
    """What a worker returns where it would raise: torch would wrap an exception in a traceback."""

    message: str


@dataclass(frozen=True)
class _TrainingImages:
    source: ImageSource
    image_size: int
    photometric: Photometric
    seed: int
    on_error: OnError
    backend: Backend

    def __call__(self, request: TrainingRequest) -> TrainingBatch | _Failed:
        _, epochs, indices = request
        count = len(indices)
        # (N, S, S, 3) in memory, seen as (N, 3, S, S): the pictures' layout, and channels_last.
        pixels = np.empty((count, self.image_size, self.image_size, 3), np.uint8)
        images = pixels.transpose(0, 3, 1, 2)
        factors: list[NDArray[np.float32]] = []
        taken: list[int] = []
        replaced: list[tuple[str, str]] = []
        draws = _draws(self.seed)
        for place, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist(), strict=True)):
            try:
                taken.append(self._cut(images[place], (epoch, index), draws, replaced))
            except UnreadableImage as error:
                return _failure(error)
            except UserError as error:
                return _Failed(str(error))
            factors.append(draw_factors(self.photometric, draws))
        return TrainingBatch(
            torch.from_numpy(images),
            torch.from_numpy(np.stack(factors)),
            torch.from_numpy(self.source.labels[taken]),
            replaced,
        )

    def _cut(
        self,
        out: NDArray[np.uint8],
        place: tuple[int, int],
        draws: Draws,
        replaced: list[tuple[str, str]],
    ) -> int:
        """Cut the image at `place` (epoch, index), or the first readable after it, into `out`.

        Returns:
            the index of the image taken; `draws` stands after the cut's own.
        """
        epoch, index = place
        last: UnreadableImage | None = None
        for skipped in range(min(MAX_SKIPPED, len(self.source))):
            taken = (index + skipped) % len(self.source)
            draws.go_to(epoch, index)  # the place's, whichever image takes it
            try:
                picture = read_image(self.source, taken, self.backend)
                out[:] = cut_training(picture, self.image_size, draws)
            except UnreadableImage as error:
                if self.on_error is OnError.fail:
                    raise
                last = error
                replaced.append((self.source.identity(taken), error.reason))
            else:
                return taken
        raise UserError(
            f"{min(MAX_SKIPPED, len(self.source))} images in a row cannot be read, the last is "
            f"{last}; check the disk or the data set"
        )


@dataclass(frozen=True)
class _ValidationImages:
    source: ImageSource
    image_size: int
    on_error: OnError
    backend: Backend

    def __call__(self, request: range) -> ValidationBatch | _Failed:
        count = len(request)
        pixels = np.zeros((count, self.image_size, self.image_size, 3), np.uint8)
        images = pixels.transpose(0, 3, 1, 2)
        readable = np.ones(count, np.bool_)
        unreadable: list[tuple[str, str]] = []
        for place, index in enumerate(request):
            try:
                picture = read_image(self.source, index, self.backend)
                images[place] = cut_single(picture, self.image_size)
            except UnreadableImage as error:
                if self.on_error is OnError.fail:
                    return _failure(error)
                readable[place] = False
                unreadable.append((error.name, error.reason))
        return ValidationBatch(
            torch.from_numpy(images),
            torch.from_numpy(self.source.labels[request.start : request.stop].copy()),
            torch.from_numpy(readable),
            unreadable,
        )


@functools.lru_cache(maxsize=1)
def _draws(seed: int) -> Draws:
    return Draws(seed)


def read_image(source: ImageSource, index: int, backend: Backend) -> Picture:
    """Read and open one image.

    Raises:
        UnreadableImage: the file cannot be read or decoded; a damaged one may say so only when it
            is loaded or cut, see `backend.open_picture`.
    """
    try:
        data = source.read(index)
    except OSError as error:
        raise UnreadableImage(source.name(index), error.strerror or str(error)) from error
    return open_picture(data, source.name(index), backend)


def _failure(error: UnreadableImage) -> _Failed:
    return _Failed(
        f"{error.name} cannot be read: {error.reason}; "
        "repair or remove it, or set data.on_error=skip"
    )


def produced(
    make: Callable[[R], T | _Failed], requests: Iterator[R], workers: int | None, batch_bytes: int
) -> Generator[T, None, None]:
    """What `make` makes of every request, in order, made by worker processes.

    The processes live until the iterator ends.

    Args:
        make: a function that can be pickled; returns a named tuple of tensors and plain values.
        requests: each is what a batch is made of; taken ahead of the batches.
        workers: processes; 0 makes batches in this one, None is `default_workers()`.
        batch_bytes: the most that one batch takes.

    Raises:
        UserError: `make` found something it cannot go on from; a worker died; too little shared
            memory for so many workers.
    """
    workers = default_workers() if workers is None else workers
    shared_memory.require(workers, batch_bytes)
    made = _from_workers(make, requests, workers) if workers else _from_here(make, requests)
    try:
        for batch in made:
            if isinstance(batch, _Failed):
                raise UserError(batch.message)
            yield batch
    finally:
        made.close()


def _from_here(
    make: Callable[[R], T | _Failed], requests: Iterator[R]
) -> Generator[T | _Failed, None, None]:
    for request in requests:
        yield make(request)


def _from_workers(
    make: Callable[[R], T | _Failed], requests: Iterator[R], workers: int
) -> Generator[T | _Failed, None, None]:
    loader: DataLoader[Any] = DataLoader(
        _Made(make),
        batch_size=None,  # a request makes a whole batch
        sampler=_Once(requests),
        num_workers=workers,
        prefetch_factor=shared_memory.PREFETCHED_BATCHES,
        collate_fn=_unchanged,
        worker_init_fn=_start_worker,
        # A fork takes milliseconds and shares the source's memory; workers never touch CUDA.
        # Elsewhere (macOS) forking is unsafe and the platform's default is used.
        multiprocessing_context="fork" if sys.platform == "linux" else None,
        # Its own generator: the loader would draw its workers' seeds from torch's global one.
        generator=torch.Generator(),
    )
    # A scheduler's signal to the whole group must not end a worker that does not ignore it yet.
    signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        iterator: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    _tell_of_deaths_when_asked()
    stop = functools.partial(_stop, iterator)
    # For a caller that never closes its iterator: at its end the interpreter sends SIGTERM to its
    # children, which these ignore, and waits for them for ever.
    atexit.register(stop)
    try:
        while True:
            try:
                with _fetching:
                    _require_alive(iterator._workers)
                    batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                # The last two: it died in the middle of handing a batch over.
                if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(
                    f"a process that reads images died: {reason}; out of memory or of /dev/shm? "
                    "Try fewer with data.workers=N; 0 needs neither"
                ) from error
            yield batch
    finally:
        stop()
        atexit.unregister(stop)


class _Fetching:
    """Whether the main thread waits for a batch at this moment."""

    active = False

    def __enter__(self) -> None:
        self.active = True

    def __exit__(self, *_: object) -> None:
        self.active = False


_fetching = _Fetching()


def _tell_of_deaths_when_asked() -> None:
    """Keep torch's handler of SIGCHLD from raising outside a fetch.

    It would raise at whatever line the main thread is, also in the middle of an update, whose
    state is then not worth saving. A worker that died meanwhile is found at the next fetch.
    """
    torchs = signal.getsignal(signal.SIGCHLD)
    if isinstance(torchs, _WhenFetching) or not callable(torchs):
        return
    if threading.current_thread() is threading.main_thread():  # torch sets none elsewhere either
        signal.signal(signal.SIGCHLD, _WhenFetching(torchs))


@dataclass(frozen=True)
class _WhenFetching:
    """A signal handler that does what `handler` does, but only inside a fetch."""

    handler: Callable[[int, FrameType | None], Any]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _fetching.active:
            self.handler(number, frame)


def _require_alive(workers: Iterable[Any]) -> None:
    for worker in workers:
        if not worker.is_alive():
            raise RuntimeError(
                f"DataLoader worker (pid {worker.pid}) ended with status {worker.exitcode}"
            )


def _stop(iterator: Any) -> None:
    # torch stops workers when the iterator is collected; an exception's traceback can keep it.
    iterator._shutdown_workers()
    for worker in iterator._workers:
        if worker.is_alive():  # stuck in a read that does not return
            worker.kill()


@dataclass(frozen=True)
class _Made(Dataset[Any]):
    """A map from requests to batches, as the loader wants to see it."""

    make: Callable[[Any], Any]

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.make(request)
        except UserError as error:
            return _Failed(str(error))


@dataclass(frozen=True)
class _Once:
    """Hands the loader its requests as it asks for them, in the main process."""

    requests: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.requests)


def _unchanged(batch: T) -> T:
    return batch


def _start_worker(_: int) -> None:
    # Ctrl-C and a scheduler's signals go to the whole process group; the main process decides what
    # happens, and needs its workers until it has saved.
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    torch.set_num_threads(1)  # the workers are the parallelism
