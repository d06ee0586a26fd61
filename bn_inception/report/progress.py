"""How runs stand: one line each, for a terminal of 80 columns."""

import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.fields import parse_object
from bn_inception.paper.results import MINI_BATCH
from bn_inception.quoting import printable, shortened
from bn_inception.record.summary import RunStatus, Summary, read_summary

SILENT_AFTER = 15 * 60.0
"""Seconds; an evaluation of 50,000 images may take minutes."""
_NAME = 22
"""Characters of a name; what is left of 80 for it."""
_TAIL = 1 << 14
"""Bytes at the end of a record that are looked at."""


_LINE = f"{{:<{_NAME}}} {{:<12}} {{:>15}} {{:>6}} {{:>8}} {{}}"
HEADER = _LINE.format("run", "state", "step/planned", "best", "images", "ends")


@dataclass(frozen=True)
class Progress:
    """One run, as its folder tells it.

    Attributes:
        state: its status; `silent` and for how many hours and minutes, where a run that says that
            it runs has written nothing for long: it was killed, or hangs.
        step, planned: updates; `planned` is None where unknown.
        best: top-1, a fraction; None before the first evaluation.
        images_per_second: training throughput, of the last interval while it runs.
        ends: when it will have ended; None unless it runs.
    """

    name: str
    state: str
    step: int
    planned: int | None
    best: float | None
    images_per_second: float
    ends: datetime | None

    def line(self) -> str:
        """At most 80 columns."""
        best = "-" if self.best is None else f"{100 * self.best:.1f} %"
        ends = "" if self.ends is None else f"{self.ends:%d %b %H:%M}"
        speed = f"{self.images_per_second:,.0f}/s" if self.images_per_second else "-"
        steps = f"{_short(self.step)}/{'?' if self.planned is None else _short(self.planned)}"
        name = shortened(printable(self.name), _NAME)
        return _LINE.format(name, self.state, steps, best, speed, ends).rstrip()


def _short(steps: int) -> str:
    return f"{steps:,}" if steps < 1_000_000 else f"{steps / 1e6:.2f}M"


def read_progress(root: Path, now: float | None = None) -> list[Progress]:
    """Every run below a folder, or the one run that it is, by name; `now` is for tests."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of your runs, such as outputs")
    folders = [root] if (root / "summary.json").is_file() else sorted(root.iterdir())
    now = time.time() if now is None else now
    return [_progress(folder, now) for folder in folders if (folder / "summary.json").is_file()]


def _progress(folder: Path, now: float) -> Progress:
    summary = read_summary(folder / "summary.json")
    state, step, speed, ends = summary.status.value, summary.step, summary.images_per_second, None
    if summary.status is RunStatus.running:
        # Newer than the summary, which is written where the run is saved.
        written, last_step, last_speed = _last_training(folder / "metrics.jsonl")
        step, speed = max(step, last_step), last_speed or speed
        if written is not None and now - written > SILENT_AFTER:
            hours, minutes = divmod(int(now - written) // 60, 60)
            state = f"silent {hours}:{minutes:02}"
        elif written is not None:
            ends = _end(summary, step, speed, written, now)
    best = None if summary.best is None else summary.best.top1
    return Progress(folder.resolve().name, state, step, summary.planned_steps, best, speed, ends)


def _last_training(metrics: Path) -> tuple[float | None, int, float]:
    """When a record was last written to, and the last training interval's step and images/s."""
    try:
        with metrics.open("rb") as file:
            written = os.fstat(file.fileno()).st_mtime
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None, 0, 0.0
    for line in reversed(lines):
        try:
            fields = parse_object(line.decode("utf-8", "replace"), str(metrics), "")
            if fields.get("kind", str) == "train":
                speed = fields.get("images_per_second", float | None) or 0.0
                return written, fields.get("step", int), speed
        except UserError:
            # The first line is cut, and the last one may be under way.
            continue
    return written, 0, 0.0


def _end(summary: Summary, step: int, speed: float, at: float, now: float) -> datetime | None:
    """By the speed of its steps alone: what its evaluations take comes on top."""
    if summary.planned_steps is None or not speed:
        return None
    images = summary.images_seen / summary.step if summary.step else MINI_BATCH
    left = (summary.planned_steps - step) * images / speed
    return datetime.fromtimestamp(now) + timedelta(seconds=max(0.0, left - (now - at)))
