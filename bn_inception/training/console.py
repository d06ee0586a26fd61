"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from bn_inception.quoting import printable
from bn_inception.record import Best, TrainRecord, ValidationRecord


class Console:
    """Progress of one run, on `stream` (standard error by default).

    On a terminal a tqdm bar with loss, rate, images/s, time left, last and best accuracy;
    elsewhere a plain line at every evaluation and at most every `interval` seconds between them.
    """

    def __init__(
        self, name: str, total: int, step: int, stream: TextIO | None = None, interval: float = 15.0
    ) -> None:
        self._name = name
        self._total = total
        self._stream = stream or sys.stderr
        self._interval = interval
        self._first_step = step
        self._started = self._printed = time.monotonic()
        self._fields: dict[str, str] = {}
        self._bar: Any = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total, initial=step, desc=name, unit="step", file=self._stream,
                dynamic_ncols=True,
            )  # fmt: skip

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        line = printable(line)
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def show(self, record: TrainRecord | ValidationRecord, best: Best | None = None) -> None:
        """Show a record just made, beside what the others before it showed, and the best so far."""
        self._fields |= record.shown
        if best is not None:
            self._fields["best"] = f"best {best.top1:.2%}"
        self._show(record.step, force=isinstance(record, ValidationRecord))

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _show(self, step: int, force: bool) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._fields.values()), refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if force or now - self._printed >= self._interval or step >= self._total:
            self._printed = now
            fields = "  ".join(self._fields.values())
            self.say(f"{self._name}  step {step}/{self._total}  {fields}  left {self._left(step)}")

    def _left(self, step: int) -> str:
        done = step - self._first_step
        if done <= 0:
            return "?"
        seconds = (time.monotonic() - self._started) / done * (self._total - step)
        return str(tqdm.format_interval(seconds))
