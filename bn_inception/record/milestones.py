"""Steps to accuracy: the quantity of BN Figure 3."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bn_inception.errors import UserError
from bn_inception.fields import FRACTION


@dataclass(frozen=True)
class Milestone:
    """One target accuracy and when a run met it.

    Attributes:
        target: top-1 accuracy, a fraction in (0, 1].
        step: the first evaluated step at or above `target`; None until there is one.
        previous_step: the evaluation before it, so that the true step lies in
            (previous_step, step]; 0 where `step` is the first evaluation, None until reached.
    """

    target: float = field(metadata={FRACTION: True})
    step: int | None = None
    previous_step: int | None = None


class Milestones:
    """Follows the evaluations of a run and notes when each target is first met.

    Args:
        targets: top-1 accuracies, fractions in (0, 1], any number, in any order.

    Raises:
        UserError: a target outside (0, 1], or given twice.
    """

    def __init__(self, targets: Iterable[float] = ()) -> None:
        ordered = sorted(targets)
        for target in ordered:
            if not 0 < target <= 1:
                raise UserError(
                    f"milestones: {target} is not a fraction in (0, 1]; 72.2 % is written 0.722"
                )
        for target, following in pairwise(ordered):
            if target == following:
                raise UserError(f"milestones: {target} is given twice; give each target once")
        self._milestones = [Milestone(float(target)) for target in ordered]
        self._last_step: int | None = None

    @property
    def targets(self) -> tuple[float, ...]:
        """The targets, ascending."""
        return tuple(milestone.target for milestone in self._milestones)

    def observe(self, step: int, top1: float) -> None:
        """Take note of one evaluation; steps must increase from call to call."""
        if self._last_step is not None and step <= self._last_step:
            raise ValueError(f"evaluation at step {step} after one at step {self._last_step}")
        self._milestones = [
            Milestone(milestone.target, step, self._last_step or 0)
            if milestone.step is None and top1 >= milestone.target
            else milestone
            for milestone in self._milestones
        ]
        self._last_step = step

    def as_list(self) -> list[Milestone]:
        """The milestones by ascending target."""
        return list(self._milestones)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later, as JSON-able values."""
        return {
            "last_step": self._last_step,
            "milestones": [vars(milestone).copy() for milestone in self._milestones],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Milestones":
        """The milestones whose `state()` this is."""
        milestones = cls(entry["target"] for entry in state["milestones"])
        milestones._milestones = [Milestone(**entry) for entry in state["milestones"]]
        milestones._last_step = state["last_step"]
        return milestones
