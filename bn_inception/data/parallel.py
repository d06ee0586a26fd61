"""Results of several worker processes, in order.

The n workers get every n-th request each, the same in every run. This is not torch's DataLoader,
whose SIGCHLD handler may raise at any line of the main process, such as in an update or a save.
Here the death of a worker is reported when the next result is requested.
"""

import atexit
import itertools
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.multiprocessing  # passes tensors in shared memory, not through the pipe

from bn_inception.errors import UserError

_MAX_DEFAULT_WORKERS = 16
_CPU_QUOTA = "/sys/fs/cgroup/cpu.max"
# Batches requested ahead from each worker; this covers the pause for an epoch's order.
_PREFETCHED = 4
_SHARED_MEMORY = "/dev/shm"  # Docker gives a container 64 MB of it by default
_BESIDE_PIXELS = 32  # an image's factors (at most five float32), label and flag
_PAGES = 4 * 4096  # each of a batch's three or four tensors ends in a partly used page
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

T = TypeVar("T")
R = TypeVar("R")


Progress = Callable[[str, int, int], None]
"""Told what is worked on ("train: images"), how many pieces are finished, and of how many."""


def cores() -> int:
    """Cores that this process may use, by its affinity and its container's CPU quota."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    try:
        # "200000 100000": the time of two cores; "max 100000": no limit.
        quota, period = Path(_CPU_QUOTA).read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return allowed


def default_workers(processes: int = 1) -> int:
    """Worker processes for each of `processes` that train on this machine."""
    # Each process keeps one core for itself, which launches the kernels of a GPU.
    return max(0, min(cores() // processes - 1, _MAX_DEFAULT_WORKERS))


def batch_bytes(images: int, image_size: int) -> int:
    """Bytes of a batch of `images`, uint8 3 x `image_size` x `image_size`, labels and factors."""
    return images * (3 * image_size**2 + _BESIDE_PIXELS) + _PAGES


def require_shared_memory(workers: int, batch: int, processes: int = 1) -> None:
    """Refuse more workers in each process than `/dev/shm` has room for; `batch` is in bytes.

    If it is full, the kernel kills the worker that writes (SIGBUS), perhaps hours into a run. A
    worker has at most `_PREFETCHED` finished batches that have not been taken, and one more is
    being handed over or used by the main process. Systems without `/dev/shm` are not checked.
    """
    of_a_worker = processes * (_PREFETCHED + 1) * batch
    need = workers * of_a_worker
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return
    free = status.f_bavail * status.f_frsize
    if need <= free or sys.platform != "linux":
        return
    fitting = free // of_a_worker
    shared = f" in each of {processes} processes" if processes > 1 else ""
    fewer = f"data.workers={fitting} fits, " if fitting else ""
    raise UserError(
        f"data.workers: {workers}{shared} need {-(-need // 2**20):,} MiB of shared memory, and "
        f"{free // 2**20:,} MiB are free in {_SHARED_MEMORY}; {fewer}data.workers=0 needs none, "
        f"and docker run --shm-size={-(-2 * need // 2**20)}m gives a container enough"
    )


def produced(
    make: Callable[[T], R], requests: Iterable[T], workers: int | None, batch_bytes: int = 0
) -> Generator[R, None, None]:
    """The results of `make` for all requests, in order; the processes live until the iterator ends.

    Each process has only a few requests at a time, so memory does not grow with their number. If
    the iterator is closed early, the processes are killed: files that they write must be complete
    or absent. UserError: from `make`; a process died; too little shared memory for the workers.

    `make` can be pickled and returns tensors and plain values. `workers` are processes: 0 works in
    this one, None is `default_workers()`. `batch_bytes` bounds the tensors of one result.
    """
    workers = default_workers() if workers is None else workers
    require_shared_memory(workers, batch_bytes)
    if not workers:
        yield from map(make, requests)
        return
    processes, asked = list[_Worker](), deque[_Worker]()

    def stop() -> None:
        for process in processes:  # all, before a further Ctrl-C can end the waiting
            process.process.kill()  # to ask it to end would wait for its present request
        for process in processes:
            process.process.join()
            process.pipe.close()

    def next_result() -> R:
        for process in processes:
            process.check()
        result: R = asked.popleft().answer()
        return result

    # If a caller never closes its iterator, the interpreter would wait at exit for its children,
    # and these for requests.
    atexit.register(stop)
    try:
        processes += (_Worker(make) for _ in range(workers))
        for process, request in zip(itertools.cycle(processes), requests):
            with suppress(OSError):  # dead; `check` reports it
                process.pipe.send(request)
            asked.append(process)
            if len(asked) == workers * _PREFETCHED:
                yield next_result()
        while asked:
            yield next_result()
    finally:
        stop()
        atexit.unregister(stop)


class _Worker:
    """A process that handles requests one after the other."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        # A fork takes milliseconds and shares the source's memory; workers do not use CUDA.
        # Elsewhere (macOS) forking is unsafe, and the platform's default is used.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(make, theirs, self.pipe))
        # A scheduler's signal to the whole group must not end a worker that does not ignore it yet.
        signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
        theirs.close()  # only the worker holds this end: its death closes the pipe

    def answer(self) -> Any:
        try:
            made = self.pipe.recv()
        except (OSError, EOFError):
            self.process.join(1)  # its pipe may be closed before its status is available
            self.check()
            raise
        if isinstance(made, UserError):
            raise made
        return made

    def check(self) -> None:
        if not self.process.is_alive():
            raise UserError(
                f"a process that reads images died: process {self.process.pid} ended with status "
                f"{self.process.exitcode}; out of memory or of /dev/shm? Try fewer with "
                "data.workers=N (prepare: workers=N); 0 needs neither"
            )


def _serve(make: Callable[[Any], Any], pipe: Connection, mains: Connection) -> None:
    # When the main process dies, its end of the pipe closes, and with it worker after worker ends:
    # those that were started later hold copies of it.
    mains.close()
    # Signals go to the whole group. The main process needs its workers until it has saved.
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    torch.set_num_threads(1)  # the workers are the parallelism
    while True:
        try:
            request = pipe.recv()
        except (EOFError, ConnectionError):
            return  # the main process has ended
        try:
            made = make(request)
        except UserError as error:
            made = error
        with suppress(ConnectionError):
            pipe.send(made)
        del made  # its tensors would stay in shared memory until the next ones are made
