"""Work for several processes, its results in order.

What a request gives does not depend on the number of processes, and none are started for
`workers=0`. A process is asked for the same requests in every run: every n-th is its own. torch's
DataLoader is not used: its SIGCHLD handler raises at any line of the main process, in the middle of
an update or of its saving, where here a death is told when the next result is asked for.
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
from typing import Any, Protocol, TypeVar

import torch
import torch.multiprocessing  # hands tensors over in shared memory, not through the pipe

from bn_inception.data import shared_memory
from bn_inception.errors import UserError

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


def produced(
    make: Callable[[T], R], requests: Iterable[T], workers: int | None, batch_bytes: int = 0
) -> Generator[R, None, None]:
    """What `make` makes of every request, in order; the processes live until the iterator ends.

    Each has a few requests under way or waiting, so memory does not grow with their number. Where
    the iterator is closed before its end they are broken off: what they write must be whole or not
    there.

    Args:
        make: can be pickled; returns tensors and plain values, or raises UserError.
        requests: taken ahead of the results.
        workers: processes; 0 works in this one, None is `default_workers()`.
        batch_bytes: the most that the tensors of one result take.

    Raises:
        UserError: from `make`; a process died; too little shared memory for so many.
    """
    workers = default_workers() if workers is None else workers
    shared_memory.require(workers, batch_bytes)
    if not workers:
        yield from map(make, requests)
        return
    processes: list[_Worker] = []

    def stop() -> None:
        for process in processes:
            process.kill()

    # For a caller that never closes its iterator: at its end the interpreter waits for its
    # children, and these for requests.
    atexit.register(stop)
    try:
        processes += (_Worker(make) for _ in range(workers))
        asked: deque[_Worker] = deque()
        for process, request in zip(itertools.cycle(processes), requests):
            process.ask(request)
            asked.append(process)
            if len(asked) == workers * shared_memory.PREFETCHED_BATCHES:
                yield _next(processes, asked)
        while asked:
            yield _next(processes, asked)
    finally:
        stop()
        atexit.unregister(stop)


def _next(processes: "list[_Worker]", asked: "deque[_Worker]") -> Any:
    for process in processes:
        process.check()
    return asked.popleft().answer()


class _Worker:
    """A process that makes something of every request."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        # A fork takes milliseconds and shares the source's memory; workers never touch CUDA.
        # Elsewhere (macOS) forking is unsafe and the platform's default is used.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs, self._pipe))
        # A scheduler's signal to the whole group must not end one that does not ignore it yet.
        signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
        theirs.close()  # held by the process alone: its death is the pipe's end

    def ask(self, request: object) -> None:
        with suppress(OSError):  # dead, which `check` tells
            self._pipe.send(request)

    def answer(self) -> Any:
        try:
            made = self._pipe.recv()
        except (OSError, EOFError):
            self._process.join(1)  # its pipe is closed before it can be waited for
            self.check()
            raise
        if isinstance(made, UserError):
            raise made
        return made

    def check(self) -> None:
        if not self._process.is_alive():
            raise UserError(
                f"a process that reads images died: process {self._process.pid} ended with status "
                f"{self._process.exitcode}; out of memory or of /dev/shm? Try fewer with "
                "data.workers=N (prepare: workers=N); 0 needs neither"
            )

    def kill(self) -> None:
        # Not asked to end: it would finish first what it is at.
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(make: Callable[[Any], Any], pipe: Connection, mains: Connection) -> None:
    # The end of the main process's pipe tells that it is gone: to the worker that was started last
    # at once, to every other one with the end of those after it, which hold copies of its pipe.
    mains.close()
    # Ctrl-C and a scheduler's signals go to the whole process group; the main process decides what
    # happens, and needs its workers until it has saved.
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    torch.set_num_threads(1)  # the workers are the parallelism
    while True:
        try:
            request = pipe.recv()
        except (EOFError, ConnectionError):
            return  # the main process is gone
        try:
            made = make(request)
        except UserError as error:
            made = error
        with suppress(ConnectionError):
            pipe.send(made)
        del made  # its tensors would stay in shared memory until the next ones are made
