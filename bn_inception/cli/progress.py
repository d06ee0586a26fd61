"""How far a long piece of work is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from bn_inception.quoting import printable

INTERVAL = 15.0
"""Seconds between plain lines."""


def say(line: str) -> None:
    """Tell the user something beside the results."""
    print(printable(line), file=sys.stderr, flush=True)


class ProgressBar:
    """Shows one piece of work after the other, with rate and time left, until `close`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._what: str | None = None
        self._started = self._printed = 0.0

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        line = printable(line)
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` pieces of `what` are finished; 0 starts the clock."""
        if what != self._what:
            self._begin(what, total)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._printed >= INTERVAL:
            self._printed = now
            rate = done / (now - self._started)
            left = tqdm.format_interval((total - done) / rate) if rate else "?"
            self.say(f"{what}  {done:,}/{total:,}  {rate:,.0f}/s  left {left}")

    def _begin(self, what: str, total: int) -> None:
        self.close()
        self._what = what
        self._started = self._printed = time.monotonic()
        if self._stream.isatty():
            self._bar = tqdm(
                total=total, desc=what, file=self._stream, dynamic_ncols=True, unit_scale=True
            )

    def close(self) -> None:
        """End what is shown; another call begins anew."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
