"""A worker process that died is told of when its batch is fetched, and at no other line.

torch's handler of SIGCHLD raises wherever the main thread happens to be: in the middle of an
update, whose state is then not worth saving, or in the code that saves it
(`test_a_death_is_told_at_the_next_fetch`).
"""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

_fetching = False


class WorkerDied(Exception):
    """A worker process ended while it was needed."""


def fetch(iterator: Any) -> Any:
    """The next batch of a DataLoader's iterator.

    Raises:
        StopIteration: there is none.
        WorkerDied: by a signal, or in the middle of handing a batch over.
    """
    global _fetching
    _fetching = True
    try:
        for worker in iterator._workers:
            if not worker.is_alive():
                raise WorkerDied(f"process {worker.pid} ended with status {worker.exitcode}")
        return next(iterator)
    except (OSError, EOFError) as error:
        raise WorkerDied(str(error) or type(error).__name__) from error
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise WorkerDied(str(error)) from error
    finally:
        _fetching = False


def tell_when_asked() -> None:
    """Keep the handler that torch has just set from raising outside of `fetch`."""
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
        if _fetching:
            self.handler(number, frame)
