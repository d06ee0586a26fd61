"""How runs stand: one line each."""

import os
import time
from datetime import datetime
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.fields import parse_object
from bn_inception.paper.results import MINI_BATCH
from bn_inception.quoting import printable, shortened
from bn_inception.record.summary import RunStatus, read_summary
from bn_inception.table import NOTHING, Table

SILENT_AFTER = 15 * 60.0
"""Seconds; an evaluation of 50,000 images may take minutes."""
_NAME = 18
"""Characters of a name; what is left of 80 for it."""
_TAIL = 1 << 14
"""Bytes at the end of a record that are looked at."""
_HEADER = ("run", "state", "step/planned", "best", "images", "ends")


def progress(root: Path) -> Table:
    """Every run below a folder, or the one run that it is, by name.

    It says a run's status, or for how many hours and minutes one that says that it runs has been
    silent: it was killed, or hangs. Images are those trained on a second, of the last interval
    while it runs; the end is by the speed of its steps alone, so that evaluations come on top.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of your runs, such as outputs")
    folders = [root] if (root / "summary.json").is_file() else sorted(root.iterdir())
    rows = [_row(folder) for folder in folders if (folder / "summary.json").is_file()]
    if not rows:
        raise UserError(f"{root}: no run in it; give the folder of your runs")
    return Table(_HEADER, rows, (2, 3, 4))


def _row(folder: Path) -> tuple[str, ...]:
    summary = read_summary(folder / "summary.json")
    step, planned, speed = summary.step, summary.planned_steps, summary.images_per_second
    state, ends = summary.status.value, ""
    if summary.status is RunStatus.running:
        # Newer than the summary, which is written where the run is saved.
        written, last_step, last_speed = _last_training(folder / "metrics.jsonl")
        step, speed = max(step, last_step), last_speed or speed
        silent = 0.0 if written is None else time.time() - written
        if silent > SILENT_AFTER:
            state = f"silent {int(silent) // 3600}:{int(silent) // 60 % 60:02}"
        elif written is not None and planned is not None and speed:
            images = summary.images_seen / summary.step if summary.step else MINI_BATCH
            left = (planned - step) * images / speed
            end = datetime.fromtimestamp(max(time.time(), written + left))
            ends = f"{end:%d %b %H:%M}"
    return (
        shortened(printable(folder.resolve().name), _NAME),
        state,
        f"{_short(step)}/{'?' if planned is None else _short(planned)}",
        NOTHING if summary.best is None else f"{100 * summary.best.top1:.1f} %",
        f"{speed:,.0f}/s" if speed else NOTHING,
        ends,
    )


def _short(steps: int) -> str:
    return f"{steps:,}" if steps < 1_000_000 else f"{steps / 1e6:.2f}M"


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
