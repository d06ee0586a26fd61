"""What training measures between two log steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bn_inception.paper.results import MINI_BATCH
from bn_inception.record import TrainRecord
from bn_inception.training.step import StepResult


class TrainingMeter:
    """Sums since the last log step, kept on the device so that no step waits for the host.

    `batch` is the images in one update, over all processes.
    """

    def __init__(self, device: torch.device, batch: int) -> None:
        self._batch = batch
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, correct
        self._first_nonfinite = torch.zeros((), dtype=torch.int64, device=device)
        self._steps = 0
        self._timed_steps = 0  # what was restored took no time here
        self._seconds = 0.0
        self._clock = time.perf_counter()

    def add(self, result: StepResult, step: int) -> None:
        """Add update number `step` (from 1)."""
        self._sums += torch.stack([result.loss.double(), result.correct.double()])
        fresh = ~result.finite & (self._first_nonfinite == 0)
        self._first_nonfinite += fresh * step
        self._steps += 1
        self._timed_steps += 1

    def first_nonfinite(self) -> int | None:
        """The first update whose loss was not finite, if any (a synchronization on CUDA)."""
        return int(self._first_nonfinite) or None

    def record(self, step: int, rate: float) -> TrainRecord:
        """What was measured up to `step`, whose learning rate was `rate`; starts a new interval."""
        loss, correct = self._sums.tolist()
        seconds = self._seconds + time.perf_counter() - self._clock
        record = TrainRecord(
            step=step,
            equivalent_steps=step * self._batch / MINI_BATCH,
            loss=loss / self._steps,
            learning_rate=rate,
            images_per_second=self._timed_steps * self._batch / seconds if seconds > 0 else 0.0,
            top1=correct / (self._steps * self._batch),
        )
        self._sums.zero_()
        self._steps = self._timed_steps = 0
        self._seconds = 0.0
        self.start_clock()
        return record

    def start_clock(self) -> None:
        """Count time from here on."""
        self._clock = time.perf_counter()

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave out what happens inside: evaluations and checkpoints are not training."""
        self._seconds += time.perf_counter() - self._clock
        yield
        self.start_clock()

    def state(self) -> dict[str, float]:
        """The sums, for a checkpoint made inside an interval."""
        loss, correct = self._sums.tolist()
        return {"loss": loss, "correct": correct, "steps": self._steps}

    def restore(self, state: dict[str, float]) -> None:
        """Take up the sums of `state`."""
        self._sums.copy_(torch.tensor([state["loss"], state["correct"]], dtype=torch.float64))
        self._steps = int(state["steps"])
