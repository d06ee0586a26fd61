"""A process beside this one that does one thing at a time and is idle in between."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

import torch

from bn_inception.errors import UserError

T = TypeVar("T")

MAX_SECONDS = 900.0
"""One answer takes seconds to a minute; what takes longer has stopped for good."""


class Failed(Exception):
    """What was asked for could not be done; the text says why, in one line."""


class NotInstalled(Failed):
    """A package is missing."""


class Aside:
    """A process that answers `ask`; a context manager, which ends it.

    What is imported, started or leaked there disturbs no other process: it has no thread that
    works while nothing is asked. torch computes with one thread in it, and what it prints is lost.
    """

    def __init__(self) -> None:
        # A fork shares what is imported here. Elsewhere (macOS) it is unsafe.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._here, there = context.Pipe()
        self._process: Any = context.Process(target=_serve, args=(there,))
        self._process.start()
        there.close()

    def __enter__(self) -> "Aside":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.join()
        self._here.close()

    def ask(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function(*arguments)` returns there; all of it is pickled.

        Raises:
            UserError: that it raised one.
            NotInstalled: that it imported what is not there.
            Failed: anything else that went wrong there, its end included.
        """
        try:
            self._here.send((function, arguments))
            if not self._here.poll(MAX_SECONDS):
                raise Failed(f"no answer in {MAX_SECONDS:.0f} s")
            answer = self._here.recv()
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise Failed(f"its process died (status {self._process.exitcode})") from error
        if isinstance(answer, _Raised):
            raise answer.kind(answer.text)
        result: T = answer
        return result


@dataclass(frozen=True)
class _Raised:
    """An exception as kind and text: not every exception can be pickled."""

    kind: type[Exception]
    text: str


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the main process ends this
    # DALI's libraries say at length which codecs they did not find. What fails comes back as text.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    torch.set_num_threads(1)
    main = multiprocessing.parent_process()
    while True:
        # Siblings hold copies of the pipe's other end: a main process that was killed leaves it
        # open.
        while not connection.poll(1.0):
            if main is None or not main.is_alive():
                return
        function, arguments = connection.recv()
        try:
            answer = function(*arguments)
        except UserError as error:
            answer = _Raised(UserError, str(error))
        except ImportError as error:
            answer = _Raised(NotInstalled, _one_line(error))
        except Exception as error:
            answer = _Raised(Failed, f"{type(error).__name__}: {_one_line(error)}")
        connection.send(answer)


def _one_line(error: Exception) -> str:
    # Indented lines are a traceback, or places that were searched.
    lines = [line for line in str(error).splitlines() if not line.startswith(" ")]
    return (" ".join(" ".join(lines).split()) or "no reason given")[:240]
