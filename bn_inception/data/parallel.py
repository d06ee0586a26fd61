"""Many independent pieces of work on all cores, without their inputs or results piling up."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bn_inception.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

_ORPHAN_CHECK_SECONDS = 0.5
_CPU_QUOTA = "/sys/fs/cgroup/cpu.max"


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


def processes_of(workers: int | None) -> int:
    """How many processes do the work when `unordered` is given `workers`: at least one."""
    return cores() if workers is None else max(workers, 1)


def unordered(
    work: Callable[[T], R], tasks: Iterable[T], workers: int | None
) -> Generator[R, None, None]:
    """The results of `work` for every task, as they are ready.

    At most two tasks a process are under way or waiting: memory does not grow with their number.
    Where it does not come to its end (an error, Ctrl-C), tasks under way are broken off: what they
    write must be whole or not there.

    Args:
        work: a function that can be pickled; a UserError that it raises is raised here.
        tasks: what it is called with; taken as processes come free.
        workers: processes; 0 works in this one, None is as many as cores.

    Raises:
        UserError: from `work`; or a process died.
    """
    workers = cores() if workers is None else workers
    if workers == 0:
        yield from map(work, tasks)
        return
    rest = iter(tasks)
    # Forked processes share the memory of what `work` holds; elsewhere the platform's default.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(workers, context, _start, (os.getpid(), work))
    ended = False
    try:
        running: set[Future[R]] = {pool.submit(_do, task) for task in islice(rest, 2 * workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                running |= {pool.submit(_do, task) for task in islice(rest, 1)}
        ended = True
    except BrokenProcessPool as error:
        raise UserError(
            "a process that does the work died: out of memory? Try fewer with workers=N; what is "
            "finished is kept"
        ) from error
    finally:
        # A second Ctrl-C would leave processes that nobody ends, and Python waits for at its exit.
        with _without_interrupts():
            if not ended:
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Leave Ctrl-C without effect for a moment; only the main thread gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# What this process of a pool does: handed over once, for it may hold a whole data set's names.
_work: Callable[[Any], Any]


def _start(parent: int, work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    # Ctrl-C goes to the whole group: the main process decides, and ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A process of the pool waits for ever for the next task of a parent that was killed.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _do(task: Any) -> Any:
    return _work(task)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK_SECONDS)
    os._exit(1)
