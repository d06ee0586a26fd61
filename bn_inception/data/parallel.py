"""Work for several processes: batches in order, or tasks as they are ready.

torch's DataLoader starts, feeds and ends the processes. What a request gives does not depend on
their number, and none are started for `workers=0`.
"""

import atexit
import functools
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from bn_inception.data import shared_memory, worker_deaths
from bn_inception.errors import UserError
from bn_inception.files import first_line

_MAX_DEFAULT_WORKERS = 16
_CPU_QUOTA = "/sys/fs/cgroup/cpu.max"
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

T = TypeVar("T")
R = TypeVar("R")


class Progress(Protocol):
    """Told how far a piece of work is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` pieces of `what` ("train: images") are finished; first with 0."""


def cores() -> int:
    """Cores that this process may use: by its affinity, and by its container's CPU quota."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    try:
        # "200000 100000": two cores' worth of time; "max 100000": as much as there is.
        quota, period = Path(_CPU_QUOTA).read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return allowed


def default_workers(processes: int = 1) -> int:
    """Processes for reading, of each of `processes` that train on this machine.

    Cores are divided evenly; of its share a process keeps one for itself, which on a GPU launches
    the kernels, and uses no more than 16 for reading. Two cores and one process: 1; one core: 0.
    """
    return max(0, min(cores() // processes - 1, _MAX_DEFAULT_WORKERS))


@dataclass(frozen=True)
class Failed:
    """What a worker returns where it would raise: torch would wrap an exception in a traceback."""

    message: str


def produced(
    make: Callable[[R], T | Failed], requests: Iterator[R], workers: int | None, batch_bytes: int
) -> Generator[T, None, None]:
    """What `make` makes of every request, in order; the processes live until the iterator ends.

    Args:
        make: a function that can be pickled; returns a named tuple of tensors and plain values.
        requests: taken ahead of the batches.
        workers: processes; 0 makes batches in this one, None is `default_workers()`.
        batch_bytes: the most that one batch takes.

    Raises:
        UserError: `make` found something it cannot go on from; a worker died; too little shared
            memory for so many workers.
    """
    workers = default_workers() if workers is None else workers
    shared_memory.require(workers, batch_bytes)
    with closing(_made(make, requests, workers, in_order=True)) as batches:
        yield from batches


def unordered(
    work: Callable[[T], R], tasks: Iterable[T], workers: int | None
) -> Generator[R, None, None]:
    """The results of `work`, which can be pickled, for every task, as they are ready.

    A few tasks a process are under way or waiting: memory does not grow with their number. Where
    it does not come to its end (an error, Ctrl-C), tasks under way are broken off: what they write
    must be whole or not there. 0 `workers` are this process, None is as many as cores.

    Raises:
        UserError: from `work`; or a process died.
    """
    workers = cores() if workers is None else workers
    with closing(_made(work, iter(tasks), workers, in_order=False)) as results:
        yield from results


def _made(
    make: Callable[[R], T | Failed], requests: Iterator[R], workers: int, in_order: bool
) -> Generator[T, None, None]:
    making = _from_workers(make, requests, workers, in_order) if workers else map(make, requests)
    try:
        for made in making:
            if isinstance(made, Failed):
                raise UserError(made.message)
            yield made
    finally:
        if isinstance(making, Generator):
            making.close()


def _from_workers(
    make: Callable[[R], T | Failed], requests: Iterator[R], workers: int, in_order: bool
) -> Generator[T | Failed, None, None]:
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
        in_order=in_order,
    )
    # A scheduler's signal to the whole group must not end a worker that does not ignore it yet.
    signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        iterator: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    worker_deaths.tell_when_asked()
    stop = functools.partial(_stop, iterator)
    # For a caller that never closes its iterator: at its end the interpreter sends SIGTERM to its
    # children, which these ignore, and waits for them for ever.
    atexit.register(stop)
    try:
        while True:
            try:
                batch = worker_deaths.fetch(iterator)
            except StopIteration:
                return
            except worker_deaths.WorkerDied as error:
                raise UserError(
                    f"a process that reads images died: {first_line(error)}; out of memory or of "
                    "/dev/shm? Try fewer with data.workers=N (prepare: workers=N); 0 needs neither"
                ) from error
            yield batch
    finally:
        stop()
        atexit.unregister(stop)


def _stop(iterator: Any) -> None:
    # Killed, not asked: asked, each may finish what it is at for five seconds, one after the other.
    for worker in iterator._workers:
        worker.kill()
    # torch tidies up when the iterator is collected; an exception's traceback can keep it.
    iterator._shutdown_workers()


@dataclass(frozen=True)
class _Made(Dataset[Any]):
    """A map from requests to batches, as the loader wants to see it."""

    make: Callable[[Any], Any]

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.make(request)
        except UserError as error:
            return Failed(str(error))


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
