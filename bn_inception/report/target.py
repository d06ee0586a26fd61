"""The curves of a recipe's seeds, and the target that the plain network's set for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bn_inception.record.summary import RunStatus
from bn_inception.report.curves import (
    Array,
    Curves,
    learned_limit,
    steps_to,
    still_climbs,
    target_of,
)
from bn_inception.report.estimates import percent
from bn_inception.report.runs import Run


@dataclass(frozen=True)
class Target:
    """The accuracy to which steps are counted.

    Attributes:
        plain: the curves that set it; None where no run has an evaluation, or classes are unknown.
        level: top-1, a fraction; None likewise.
        fault: why steps to it show nothing; None where they do.
    """

    plain: Curves | None
    level: float | None
    fault: str | None

    def steps(self, own: Curves) -> tuple[Array, Array]:
        """When each of S seeds reaches it, shape (S,), and whether it does; see `steps_to`."""
        return steps_to(own.steps, own.top1, np.full(len(own.seeds), self.level), own.chance)


def target_by(runs: Sequence[Run]) -> Target:
    """The target that runs of the plain network set."""
    plain = curves_of(runs)
    level = None if plain is None else float(target_of(plain.top1))
    return Target(plain, level, _fault(runs, plain, level))


def _fault(runs: Sequence[Run], plain: Curves | None, level: float | None) -> str | None:
    for run in runs:
        if run.summary.status is RunStatus.diverged:
            return f"the plain network {run.name} diverged and sets no target"
    if plain is None or level is None:
        return "the plain network has no evaluation"
    limit = learned_limit(plain.chance)
    if level <= limit:
        return f"the target {percent(level)} is at chance (not above {percent(limit)})"
    if still_climbs(plain.top1.mean(0)):
        return (
            "the plain network still climbs: its last third gains more than a fifth of its "
            "plateau, or a tenth of what that leaves to 100 %; a smaller scale.compression trains "
            "longer"
        )
    return None


def curves_of(runs: Sequence[Run]) -> Curves | None:
    """The curves of runs of one recipe and setting, at the steps at which all were evaluated.

    A run that diverged is at chance at every step that it did not come to. None where no run has an
    evaluation, or classes are unknown.
    """
    whole = [run for run in runs if run.summary.status is not RunStatus.diverged] or list(runs)
    steps = sorted(set.intersection(*(set(run.steps) for run in whole))) if whole else []
    classes = runs[0].summary.classes if runs else None
    if not steps or not classes:
        return None
    ordered = sorted(runs, key=lambda run: run.summary.seed)
    values = [dict(zip(run.steps, run.top1, strict=True)) for run in ordered]
    return Curves(
        seeds=tuple(run.summary.seed for run in ordered),
        steps=np.array(steps),
        top1=np.array([[known.get(step, 1 / classes) for step in steps] for known in values]),
        count=min(run.validation_count for run in whole),
        chance=1 / classes,
    )
