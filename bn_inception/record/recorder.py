"""The recorder: everything a training loop writes down, behind a few calls."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bn_inception.errors import UserError
from bn_inception.paper.results import MINI_BATCH
from bn_inception.record.metrics import (
    MetricsLog,
    ProbeRecord,
    Record,
    TrainRecord,
    ValidationRecord,
)
from bn_inception.record.milestones import Milestones
from bn_inception.record.run_folder import RunFolder
from bn_inception.record.summary import Best, Divergence, RunStatus, Summary
from bn_inception.record.tensorboard import HyperparameterValue, TensorBoardMirror


class Recorder:
    """Writes one run's metrics, summary and TensorBoard mirror, and remembers its best.

    Call `start` for a new run or `restore` for a resumed one, then `train` and `validation` in
    the order of their steps, then `finish`. At one step the record is independent of whether a
    checkpoint is made before or after the evaluation.

    Args:
        folder: created or opened for resume, so that this process holds its lock; None writes
            nothing, for every process of a run but the first.
        summary: names the run; the recorder fills in the rest as it goes.
        batch: images in one update, over all processes.
        targets: top-1 accuracies (fractions) whose steps are milestones.
        hyperparameters: for TensorBoard's hparams page.

    Attributes:
        summary: as of the last call.
        milestones: the steps to the target accuracies so far.
        last_train_step, last_validation_step: the steps of the last records; None before them.

    Raises:
        UserError: bad targets; and from every call that writes: the folder is full or not
            writable.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        summary: Summary,
        *,
        batch: int,
        targets: Iterable[float] = (),
        hyperparameters: Mapping[str, HyperparameterValue] | None = None,
    ) -> None:
        self.summary = summary
        self.milestones = Milestones(targets)
        self.last_train_step: int | None = None
        self.last_validation_step: int | None = None
        self._folder = folder
        self._batch = batch
        self._hyperparameters = dict(hyperparameters or {})
        self._training_images = 0
        self._training_seconds = 0.0
        self._earlier_seconds = 0.0
        self._opened = time.monotonic()
        self._metrics: MetricsLog | None = None
        self._mirror: TensorBoardMirror | None = None

    @property
    def best(self) -> Best | None:
        """The highest validation accuracy so far and its first step."""
        return self.summary.best

    def start(self) -> None:
        """Begin the record of a new run: `summary.json` says `running` from here on."""
        if self._folder is not None:
            self._open(self._folder)
        self._write_summary()

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Continue the record from a checkpoint.

        Metrics of later steps are dropped, and TensorBoard is told to drop them too.

        Args:
            state: `state()` at the checkpoint.
            step: the checkpoint's step.

        Raises:
            UserError: other milestones than the run was started with, or `metrics.jsonl` does
                not hold what it did at the checkpoint.
        """
        milestones = Milestones.from_state(state["milestones"])
        if milestones.targets != self.milestones.targets:
            raise UserError(
                f"milestones: {list(self.milestones.targets)} differ from "
                f"{list(milestones.targets)}, with which the run was started; "
                "resume with the same ones"
            )
        self.milestones = milestones
        self.last_train_step = state["last_train_step"]
        self.last_validation_step = state["last_validation_step"]
        self._training_images = state["training_images"]
        self._training_seconds = state["training_seconds"]
        self._earlier_seconds = state["wall_seconds"]
        self._opened = time.monotonic()
        self.summary.best = None if state["best"] is None else Best(**state["best"])
        self.summary.started_learning = state["started_learning"]
        self.summary.replaced_images = dict(state["replaced_images"])
        self.summary.unreadable_validation_images = state["unreadable_validation_images"]
        self._at(step)
        if self._folder is not None:
            self._open(self._folder, step, state["metrics_lines"], state["metrics_checksum"])
        self._write_summary()

    def train(self, record: TrainRecord) -> None:
        """Record the log interval that ends at the record's step."""
        self._at(record.step)
        images = (record.step - (self.last_train_step or 0)) * self._batch
        if record.images_per_second is not None and record.images_per_second > 0:
            self._training_images += images
            self._training_seconds += images / record.images_per_second
        self.last_train_step = record.step
        self._append(record)

    def validation(self, record: ValidationRecord, unreadable: int = 0) -> bool:
        """Record one evaluation, and bring best, milestones and `summary.json` up to date.

        Args:
            record: of an evaluation later than all before.
            unreadable: how many of its images could not be read.

        Returns:
            Whether `top1` is a new best: strictly greater than every one before.
        """
        self._at(record.step)
        self.milestones.observe(record.step, record.top1)
        self.last_validation_step = record.step
        is_best = self.summary.best is None or record.top1 > self.summary.best.top1
        if is_best:
            self.summary.best = Best(record.top1, record.step)
        self.summary.unreadable_validation_images = unreadable
        self._append(record)
        self._write_summary()
        return is_best

    def probe(self, record: ProbeRecord) -> None:
        """Record a look into a layer."""
        self._append(record)

    def training_batch(self, pixels: NDArray[np.uint8]) -> None:
        """Show a run's first mini-batch in TensorBoard, so that a wrong colour or crop is seen.

        Args:
            pixels: uint8 (N, height, width, 3), RGB, after every augmentation.
        """
        if self._mirror is not None:
            self._mirror.training_batch(pixels)

    def replaced(self, images: Iterable[tuple[str, str]]) -> None:
        """Tally training images that could not be read and were replaced: (name, reason)."""
        self.summary.replaced_images.update(images)

    def started_learning(self, started: bool) -> None:
        """Note whether the loss has left ln(classes)."""
        if started != self.summary.started_learning:
            self.summary.started_learning = started
            self._write_summary()

    def finish(
        self, status: RunStatus, *, step: int, diverged: Divergence | None = None
    ) -> Summary:
        """Write how the run ended, and close.

        Args:
            status: any but `running`.
            step: updates done.
            diverged: where, if status is `diverged`.

        Returns:
            The summary as written.
        """
        if (diverged is not None) != (status is RunStatus.diverged):
            raise ValueError(f"status {status.value} with diverged={diverged}")
        self._at(step)
        self.summary.status = status
        self.summary.diverged = diverged
        self._write_summary()
        # An interrupted run may go on.
        if self._mirror is not None and status is not RunStatus.interrupted:
            self._mirror.end(succeeded=status is RunStatus.finished)
        self.close()
        return self.summary

    def state(self) -> dict[str, Any]:
        """What a checkpoint must carry, as JSON-able values; all it counts on is on disk then."""
        if self._metrics is not None:
            self._metrics.sync()
        return {
            "best": None if self.best is None else asdict(self.best),
            "milestones": self.milestones.state(),
            "started_learning": self.summary.started_learning,
            "replaced_images": dict(self.summary.replaced_images),
            "unreadable_validation_images": self.summary.unreadable_validation_images,
            "last_train_step": self.last_train_step,
            "last_validation_step": self.last_validation_step,
            "metrics_lines": 0 if self._metrics is None else self._metrics.lines,
            "metrics_checksum": 0 if self._metrics is None else self._metrics.checksum,
            "training_images": self._training_images,
            "training_seconds": self._training_seconds,
            "wall_seconds": self._wall_seconds(),
        }

    def close(self) -> None:
        """Close the files; `summary.json` stays as it is. Harmless when repeated."""
        for file in (self._metrics, self._mirror):
            if file is not None:
                file.close()

    def _at(self, step: int) -> None:
        self.summary.step = step
        self.summary.images_seen = step * self._batch

    def _append(self, record: Record) -> None:
        if self._metrics is not None and self._mirror is not None:
            self._metrics.append(record)
            self._mirror.record(record, self.best, self.milestones.as_list())

    def _open(
        self, folder: RunFolder, at: int = 0, lines: int = 0, checksum: int | None = None
    ) -> None:
        """Open the files as they were at step `at`, with these lines in `metrics.jsonl`."""
        self._metrics = MetricsLog(folder.metrics)
        self._mirror = TensorBoardMirror(
            folder.tensorboard,
            self._hyperparameters,
            same_axis=self._batch == MINI_BATCH,
            milestones=self.milestones.as_list(),
            resumed_at=at,
            kept=self._metrics.truncate(at, lines, checksum),
            best=self.best,
        )

    def _wall_seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._opened

    def _write_summary(self) -> None:
        if self._training_seconds > 0:
            self.summary.images_per_second = self._training_images / self._training_seconds
        self.summary.wall_seconds = self._wall_seconds()
        self.summary.milestones = self.milestones.as_list()
        if self._folder is not None:
            self.summary.write(self._folder.summary)
