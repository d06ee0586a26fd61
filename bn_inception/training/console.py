"""What a person sees while a run trains, and its copy in the run's folder."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

import torch
from tqdm import tqdm

from bn_inception.data.config import audit_command, audit_record
from bn_inception.paper.results import MINI_BATCH
from bn_inception.quoting import printable, say, shortened
from bn_inception.record.metrics import TrainRecord, ValidationRecord
from bn_inception.record.summary import Summary
from bn_inception.training.session import Session

COLUMNS = 80
"""Of a terminal, and of a file that is read on one."""
_NAME = 8
"""Columns; less of a run's name tells nothing."""
_INTERVAL = 15.0
"""Seconds, at least, from one plain line about training to the next."""


class Console:
    """Progress of one run, on `stream` and in the run's `train.log`.

    A line for every evaluation. Between them a terminal has a bar with time left; elsewhere there
    is a plain line now and then. A log that cannot be written ends no run.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._file: Path | None = None
        self._unlogged: list[str] = []
        self._bar = tqdm(disable=True)
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
        self._bar = tqdm(
            total=self._total,
            initial=session.step,
            file=self._stream,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar:10}| {n_fmt}/{total_fmt}  {desc}  "
            "{remaining} left",
            disable=not self._stream.isatty(),
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

    def show_training(self, record: TrainRecord) -> None:
        """Show a log interval just recorded."""
        step, done = record.step, record.step - self._first_step
        self._loss = record.shown.get("loss/train", self._loss)
        if not self._estimated and done > 0 and step < self._total:
            self._estimated = True
            self.say(f"about {self._left(step)} left, going by the first {done:,} steps")
        fields, now = "  ".join(record.shown.values()), time.monotonic()
        if not self._bar.disable:
            self._bar.set_description_str(fields, refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._printed >= _INTERVAL or step >= self._total:
            self._printed = now
            self.say(self._line(step, f"{fields}  left {self._left(step)}"))

    def show_evaluation(self, record: ValidationRecord, summary: Summary) -> None:
        """Show an evaluation just recorded, beside the best and the milestones so far."""
        step, best = record.step, summary.best
        fields = [self._loss, *record.shown.values()]
        if best is not None:
            fields.append("(best)" if best.step == step else f"best {best.top1:.2%}")
        met = [milestone.target for milestone in summary.milestones if milestone.step == step]
        fields += [f"met {100 * max(met):.4g}%"] if met else []
        self.say(self._line(step, "  ".join(filter(None, fields))))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

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
    audit = audit_command(config.data) if session.step == 0 else None
    if audit and not audit_record(config.data, sources.fingerprint).exists():
        yield "  audit    never; this names every damaged image:"
        yield f"           {audit}"
    yield f"  network  {summary.parameters:,} parameters, {summary.classes:,} classes"
    yield f"  steps    {session.schedule.steps:,} of {config.batch.images:,} images{done}"
    yield f"  paper    {config.recipe.steps:,.0f} steps of {MINI_BATCH} images at scale=paper"
    yield f"  folder   {session.folder.path}"
    if session.step < session.schedule.steps:
        yield f"  time     known after the first {config.train.log_every:,} steps"
