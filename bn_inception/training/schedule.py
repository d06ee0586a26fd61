"""What is due when: the durations of a run, in steps."""

import math
import re
from dataclasses import dataclass
from enum import Flag, auto
from fractions import Fraction

from bn_inception.errors import UserError
from bn_inception.training.settings import Duration, OptimizerConfig, RunConfig

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_TEXT = re.compile(
    rf"\s*(?P<numerator>{_NUMBER})(?:/(?P<denominator>{_NUMBER}))?"
    r"\s*(?:(?P<unit>step|epoch|image|example)s?)?\s*",
    re.ASCII,
)


def steps(duration: Duration, *, batch: int, images: int, key: str = "duration") -> float:
    """Turn a duration into steps, one step being one optimizer update on a global mini-batch.

    Args:
        duration: a number of steps, or a text: "2000", "2000 steps", "8 epochs", "8/6 epochs",
            "1e6 images" ("examples" means the same).
        batch: images in a global mini-batch.
        images: images in one epoch, that is, in the training set.
        key: the setting's name, for the error message.

    Returns:
        Steps, not rounded: a decay interval may well lie between two steps.
    """
    text = "" if isinstance(duration, bool) else str(duration)
    match = _TEXT.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        number = float(Fraction(match["numerator"]) / Fraction(match["denominator"] or "1"))
        if not (math.isfinite(number) and number > 0):
            raise ValueError(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(
            f"{key}: {duration!r} is not a positive duration; give a number of steps or a text "
            "such as '2000 steps', '8 epochs' or '1e6 images'"
        ) from None
    if match["unit"] == "epoch":
        number *= images
    return number if match["unit"] in (None, "step") else number / batch


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
    """The durations of a run in steps: whole ones, but for those of the learning rate."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    start_check: int
    decay_steps: float
    warmup_steps: float
    optimizer: OptimizerConfig

    @classmethod
    def of(cls, config: RunConfig, images: int) -> "Schedule":
        """Turn the configured durations into steps, for a training set of `images`."""
        train, optimizer = config.train, config.optimizer
        sizes = {"batch": config.batch.images, "images": images}
        whole = {
            key: max(1, round(steps(getattr(train, key), **sizes, key=f"train.{key}")))
            for key in ("steps", "evaluate_every", "checkpoint_every", "start_check")
        }
        warmup = optimizer.warmup
        return cls(
            **whole,
            log_every=train.log_every,
            decay_steps=steps(optimizer.decay_every, **sizes, key="optimizer.decay_every"),
            warmup_steps=0.0 if warmup is None else steps(warmup, **sizes, key="optimizer.warmup"),
            optimizer=optimizer,
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

    def learning_rate(self, step: int) -> float:
        """The rate of the update that follows `step` updates: a staircase.

        While it warms up it is (step + 1) / `warmup_steps` of that.
        """
        config = self.optimizer
        stairs = math.floor(step / self.decay_steps)
        rate = float(config.learning_rate * config.decay_factor**stairs)
        warming = step + 1 < self.warmup_steps
        return rate * (step + 1) / self.warmup_steps if warming else rate
