"""What a person sees while a run trains, and its copy in the run's folder."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm

from bn_inception.data.config import audit_command, audit_record
from bn_inception.paper.results import MINI_BATCH
from bn_inception.quoting import printable, say, shortened
from bn_inception.record.metrics import TrainRecord, ValidationRecord
from bn_inception.record.summary import Best, Milestone
from bn_inception.training.session import Session

COLUMNS = 80
"""Of a terminal, and of a file that is read on one."""
_NAME = 8
"""Columns; less of a run's name tells nothing."""


class Console:
    """Progress of one run, on `stream` (standard error by default) and in the run's `train.log`.

    A line for every evaluation. Between them a terminal has a bar with time left; elsewhere there
    is a plain line at most every `interval` seconds. A log that cannot be written ends no run.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 15.0) -> None:
        self._stream = stream or sys.stderr
        self._interval = interval
        self._file: Path | None = None
        self._unlogged: list[str] = []
        self._bar: Any = None
        self._loss = ""

    def start(self, session: Session) -> None:
        """Say what begins here; before `show`."""
        self._file = session.folder.log if session.world.first else Path(os.devnull)
        self._name = session.config.run.name
        self._total = session.schedule.steps
        self._first_step = session.step
        self._estimated = False
        self._started = self._printed = time.monotonic()
        for line in _banner(session):
            self.say(line)
        if self._stream.isatty():
            self._bar = tqdm(
                total=self._total,
                initial=session.step,
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% |{bar:10}| {n_fmt}/{total_fmt}  {desc}  "
                "{remaining} left",
            )

    def say(self, line: str) -> None:
        """Print one line above the bar, and log it."""
        say(line, self._stream)
        self.log(line)

    def log(self, line: str) -> None:
        """Write a line into `train.log` alone; before `start` it waits there."""
        self._unlogged.append(printable(line))
        if self._file is None:
            return
        # Opened for each line, so that no buffer fails later: a full disk costs lines, not the run.
        with suppress(OSError), self._file.open("ab") as file:
            for unlogged in self._unlogged:
                file.write(f"{unlogged}\n".encode(errors="backslashreplace"))
        self._unlogged.clear()

    def show(
        self,
        record: TrainRecord | ValidationRecord,
        best: Best | None = None,
        milestones: Iterable[Milestone] = (),
    ) -> None:
        """Show a record just made; of an evaluation beside the best and the milestones so far."""
        step, shown = record.step, record.shown
        if isinstance(record, TrainRecord):
            self._loss = shown.get("loss/train", self._loss)
            self._show_training(step, "  ".join(shown.values()))
            return
        fields = [self._loss, *shown.values()]
        if best is not None:
            fields.append("(best)" if best.step == step else f"best {best.top1:.2%}")
        met = [milestone.target for milestone in milestones if milestone.step == step]
        fields += [f"met {100 * max(met):.4g}%"] if met else []
        self.say(self._line(step, "  ".join(filter(None, fields))))

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _show_training(self, step: int, fields: str) -> None:
        done = step - self._first_step
        if not self._estimated and done > 0 and step < self._total:
            self._estimated = True
            self.say(f"about {self._left(step)} left, going by the first {done:,} steps")
        if self._bar is not None:
            self._bar.set_description_str(fields, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._printed >= self._interval or step >= self._total:
            self._printed = now
            self.say(self._line(step, f"{fields}  left {self._left(step)}"))

    def _line(self, step: int, fields: str) -> str:
        """With as much of the run's name as there is place for."""
        line = f"step {step}/{self._total}  {fields}"
        place = COLUMNS - len(line) - 2
        return f"{shortened(self._name, place)}  {line}" if place >= _NAME else line

    def _left(self, step: int) -> str:
        done = step - self._first_step
        if done <= 0:
            return "?"
        seconds = (time.monotonic() - self._started) / done * (self._total - step)
        return str(tqdm.format_interval(seconds))


def _banner(session: Session) -> Iterator[str]:
    config, sources, device = session.config, session.batches.sources, session.learner.device
    machine, threads = "CPU", torch.get_num_threads()
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    each = f"{session.world.size} processes, each " if session.world.size > 1 else ""
    done = f", {session.step:,} of them done" if session.step else ""
    summary, now = session.recorder.summary, f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    yield f"{shortened(config.run.name, COLUMNS - len(now) - 2)}  {now}"
    yield f"  device   {each}{machine}, {threads} thread{'s' * (threads != 1)}"
    yield f"  images   {len(sources.train):,} for training, {len(sources.validation):,} held out"
    if session.step == 0 and (audit := audit_command(config.data)):
        fingerprint = f"{sources.train.fingerprint}+{sources.validation.fingerprint}"
        if not audit_record(config.data, fingerprint).exists():
            yield "  audit    never; this names every damaged image:"
            yield f"           {audit}"
    yield f"  network  {summary.parameters:,} parameters, {summary.classes:,} classes"
    yield f"  steps    {session.schedule.steps:,} of {config.batch.images:,} images{done}"
    yield f"  paper    {config.recipe.steps:,.0f} steps of {MINI_BATCH} images at scale=paper"
    yield f"  folder   {session.folder.path}"
    if session.step < session.schedule.steps:
        yield f"  time     known after the first {config.train.log_every:,} steps"
