"""Standard output and error, which may go away without taking the work with them, and progress.

`train ... | head -1`, a terminal that is closed, a full disk under the log: a run of weeks goes on,
its record is in its folder. From the first failure on, what is written goes nowhere.
"""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

from bn_inception.quoting import printable, say

INTERVAL = 15.0
"""Seconds between plain lines of progress."""


class LosableStream:
    """A text stream whose writing never fails.

    With `escape`, control characters other than line breaks and tabs are escaped: names of files
    reach it. Not where a progress bar moves the cursor. `error` is what writing failed with; a
    reader that has gone, as `head` does when it has seen enough, is none.
    """

    def __init__(self, stream: TextIO, *, escape: bool) -> None:
        self._stream = stream
        self._escape = escape
        self._lost = False
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """As of any text stream."""
        shown = printable(text, keep="\n\t") if self._escape else text
        self._attempt(lambda: self._stream.write(shown))
        return len(text)

    def flush(self) -> None:
        """As of any text stream."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            action()
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._lost = True
            if isinstance(error, OSError) and error.errno != errno.EPIPE:
                self.error = error
            # What is still in the buffer must not fail again when the interpreter ends.
            try:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            except (OSError, ValueError):
                pass


@contextmanager
def losable_streams() -> Iterator[LosableStream]:
    """Make `sys.stdout` and `sys.stderr` losable while entered; yields the first of them."""
    _open_missing_descriptors()
    before = sys.stdout, sys.stderr
    output, errors = (
        LosableStream(stream or open(os.devnull, "w"), escape=escape)  # noqa: SIM115
        for stream, escape in zip(before, (True, False), strict=True)
    )
    sys.stdout, sys.stderr = output, errors
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before


def _open_missing_descriptors() -> None:
    # Started with `>&-`: the next file that is opened would get the number of standard output, and
    # whatever is printed below Python would be written into it.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


class ProgressBar:
    """Shows one piece of work after the other, with rate and time left, until `close`.

    A bar on a terminal, plain lines elsewhere.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._what: str | None = None
        self._started = self._printed = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` pieces of `what` are finished; 0 starts the clock."""
        now = time.monotonic()
        if what != self._what:
            self.close()
            self._what, self._started, self._printed = what, now, now
            if sys.stderr.isatty():
                self._bar = tqdm(total=total, desc=what, dynamic_ncols=True, unit_scale=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif now - self._printed >= INTERVAL:
            self._printed = now
            rate = done / (now - self._started)
            left = tqdm.format_interval((total - done) / rate) if rate else "?"
            say(f"{what}  {done:,}/{total:,}  {rate:,.0f}/s  left {left}")

    def close(self) -> None:
        """End what is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
