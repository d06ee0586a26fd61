"""The recorder: everything a training loop writes down, behind a few calls."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bn_inception.errors import UserError
from bn_inception.fields import Fields
from bn_inception.record.metrics import MetricsLog, Record, TrainRecord, ValidationRecord
from bn_inception.record.run_folder import RunFolder
from bn_inception.record.summary import Divergence, RunStatus, Summary, milestones

if TYPE_CHECKING:
    from bn_inception.record.tensorboard import TensorBoardMirror

_COUNTED = ("last_train_step", "last_validation_step", "training_images", "training_seconds")
"""Attributes of the recorder that a checkpoint carries."""


class Recorder:
    """Writes one run's metrics, summary and TensorBoard mirror, and remembers its best.

    Call `start` for a new run or `restore` for a resumed one, then `train` and `validation` in the
    order of their steps, then `finish`. What cannot be written is a UserError.

    Args:
        folder: locked by this process; None writes nothing, for every process but the first.
        summary: names the run; the recorder fills in the rest as it goes.
        batch: images in one update, over all processes.
        targets: top-1 accuracies whose steps are milestones.
        hyperparameters: for TensorBoard's hparams page.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        summary: Summary,
        *,
        batch: int,
        targets: Iterable[float] = (),
        hyperparameters: Mapping[str, bool | float | str] | None = None,
    ) -> None:
        self.summary = summary
        summary.milestones = milestones(targets)
        self.last_train_step: int | None = None
        self.last_validation_step: int | None = None
        self._folder = folder
        self._batch = batch
        self._hyperparameters = dict(hyperparameters or {})
        self.training_images = 0
        self.training_seconds = 0.0
        self._began = time.monotonic()
        self._metrics: MetricsLog | None = None
        self._mirror: TensorBoardMirror | None = None

    def start(self) -> None:
        """Begin the record of a new run: `summary.json` says `running` from here on."""
        self._open(0, 0)

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Continue the record from a checkpoint at `step`, with its `state()`.

        What the record and TensorBoard hold beyond it is dropped. UserError for other milestones
        than the run was started with, and for a `metrics.jsonl` that is not the checkpoint's.
        """
        saved = Fields(state["summary"], "the recorder").as_(Summary)
        given, targets = ([m.target for m in s.milestones] for s in (self.summary, saved))
        if given != targets:
            raise UserError(
                f"milestones: {given} differ from {targets}, with which the run was started; "
                "resume with the same ones"
            )
        self.summary = replace(saved, planned_steps=self.summary.planned_steps)
        for name in _COUNTED:
            setattr(self, name, state[name])
        self._began = time.monotonic() - saved.wall_seconds
        self._at(step)
        self._open(state["metrics_lines"], state["metrics_checksum"])

    def train(self, record: TrainRecord) -> None:
        """Record the log interval that ends at the record's step."""
        self._at(record.step)
        images = (record.step - (self.last_train_step or 0)) * self._batch
        if record.images_per_second is not None and record.images_per_second > 0:
            self.training_images += images
            self.training_seconds += images / record.images_per_second
        self.last_train_step = record.step
        self.append(record)

    def validation(self, record: ValidationRecord, unreadable: int = 0) -> bool:
        """Record one evaluation, and whether it is a new best: greater than every one before."""
        self._at(record.step)
        is_best = self.summary.observe(record.step, record.top1, self.last_validation_step or 0)
        self.last_validation_step = record.step
        self.summary.unreadable_validation_images = unreadable
        self.append(record)
        self._write_summary()
        return is_best

    def append(self, record: Record) -> None:
        """Write a record of any kind, such as a look into a layer, and no more."""
        if self._metrics is not None and self._mirror is not None:
            self._metrics.append(record)
            self._mirror.record(record, self.summary)

    def training_batch(self, pixels: NDArray[np.uint8]) -> None:
        """Show the first mini-batch in TensorBoard: a wrong colour or crop is seen there."""
        if self._mirror is not None:
            self._mirror.training_batch(pixels)

    def started_learning(self, started: bool) -> None:
        """Note whether the loss has left ln(classes)."""
        if started != self.summary.started_learning:
            self.summary.started_learning = started
            self._write_summary()

    def finish(
        self, status: RunStatus, *, step: int, diverged: Divergence | None = None
    ) -> Summary:
        """Write how the run ended after `step` updates, and where it `diverged`; close."""
        self._at(step)
        self.summary.status = status
        self.summary.diverged = diverged
        self._write_summary()
        self.close()
        return self.summary

    def state(self) -> dict[str, Any]:
        """What a checkpoint must carry, as JSON-able values; all it counts on is on disk then."""
        if self._metrics is not None:
            self._metrics.sync()
        self.summary.wall_seconds = time.monotonic() - self._began
        return {
            "summary": self.summary.as_dict(),
            **{name: getattr(self, name) for name in _COUNTED},
            "metrics_lines": 0 if self._metrics is None else self._metrics.lines,
            "metrics_checksum": 0 if self._metrics is None else self._metrics.checksum,
        }

    def close(self) -> None:
        """Close the files; `summary.json` stays as it is. Harmless when repeated."""
        for file in (self._metrics, self._mirror):
            if file is not None:
                file.close()

    def _at(self, step: int) -> None:
        self.summary.step = step
        self.summary.images_seen = step * self._batch

    def _open(self, lines: int, checksum: int) -> None:
        """Open the files, with these lines in `metrics.jsonl`."""
        if self._folder is not None:
            # TensorBoard's modules take a second to import, and commands read records without them.
            from bn_inception.record.tensorboard import TensorBoardMirror

            self._metrics = MetricsLog(self._folder.metrics, lines, checksum)
            self._mirror = TensorBoardMirror(
                self._folder.tensorboard, self._hyperparameters, self.summary, self._metrics.kept
            )
        self._write_summary()

    def _write_summary(self) -> None:
        if self.training_seconds > 0:
            self.summary.images_per_second = self.training_images / self.training_seconds
        self.summary.wall_seconds = time.monotonic() - self._began
        if self._folder is not None:
            self.summary.write(self._folder.summary)
