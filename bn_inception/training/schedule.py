"""What is due when: the durations of a run, in steps."""

from dataclasses import dataclass
from enum import Flag, auto

from bn_inception.training.duration import steps, whole_steps
from bn_inception.training.settings import RunConfig


class Due(Flag):
    """What is to be done between two updates, in this order."""

    NOTHING = 0
    CHECK = auto()
    """Look whether a loss was not finite: a broken network is neither judged nor saved."""
    LOG = auto()
    STOP = auto()
    """Save without evaluating, and end."""
    EVALUATE = auto()
    SAVE = auto()


@dataclass(frozen=True)
class Schedule:
    """The durations of a run, in steps."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    start_check: int
    decay_steps: float
    warmup_steps: float

    @classmethod
    def of(cls, config: RunConfig, images: int) -> "Schedule":
        """Turn the configured durations into steps, for a training set of `images`."""
        train, optimizer = config.train, config.optimizer
        sizes = {"batch": config.batch.images, "images": images}
        whole = {
            key: whole_steps(getattr(train, key), **sizes, key=f"train.{key}")
            for key in ("steps", "evaluate_every", "checkpoint_every", "start_check")
        }
        return cls(
            **whole,
            log_every=train.log_every,
            decay_steps=steps(optimizer.decay_every, **sizes, key="optimizer.decay_every"),
            warmup_steps=0.0
            if optimizer.warmup is None
            else steps(optimizer.warmup, **sizes, key="optimizer.warmup"),
        )

    def due(self, step: int) -> Due:
        """What the number of updates alone makes due after update `step`, counted from 1."""
        due = Due.NOTHING
        for what, every in (
            (Due.LOG, self.log_every),
            (Due.EVALUATE, self.evaluate_every),
            (Due.SAVE, self.checkpoint_every),
        ):
            if step % every == 0 or step == self.steps:
                due |= what
        return due
