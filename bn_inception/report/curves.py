"""Accuracy curves of one recipe's seeds: plateau, target, steps to it. Rules: docs/statements.md.

Arrays of accuracies end in (seeds S, evaluations E); any axes before them are further draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bn_inception.paper.results import MINI_BATCH
from bn_inception.record.summary import RunStatus
from bn_inception.report.runs import Run

Array = NDArray[np.float64]

PLATEAU_SHARE = 0.1
"""The plateau is the mean of this last share of evaluations, of `PLATEAU_LEAST` at least."""
PLATEAU_LEAST = 3
POINT = 0.01
"""The target lies this much below the plain network's plateau."""
SHARES = (0.8, 0.9, 0.95)
"""Of the plain network's plateau: the targets that are shown beside, and judge nothing."""
CLIMB_SHARE, CLIMB_REST, CLIMB_POINTS = 0.2, 0.1, 0.02
"""A curve still climbs if its last third gains more than the first of its plateau, or more than the
second of what the plateau leaves to 1, which is the third at least."""


@dataclass(frozen=True)
class Curves:
    """The validation accuracies of one recipe, evaluated at the same steps for every seed.

    Attributes:
        seeds: ascending, S of them.
        steps: image-equivalent steps of the evaluations, shape (E,).
        top1: fractions, shape (S, E).
        count: held-out images of each evaluation.
        chance: 1 / classes.
    """

    seeds: tuple[int, ...]
    steps: Array
    top1: Array
    count: int
    chance: float

    def of(self, seeds: tuple[int, ...]) -> "Curves":
        """The curves of these seeds alone."""
        return replace(self, seeds=seeds, top1=self.top1[[self.seeds.index(s) for s in seeds]])

    @property
    def plateaus(self) -> Array:
        """One a seed, shape (S,)."""
        return plateau(self.top1)


def curves_of(runs: Sequence[Run]) -> Curves | None:
    """The curves of runs of one recipe and setting, at the steps at which all were evaluated.

    A run that diverged is at chance at every step that it did not come to. None where no run has an
    evaluation, or classes are unknown.
    """
    alive = [run for run in runs if run.summary.status is not RunStatus.diverged]
    whole = alive or runs
    steps = sorted(set.intersection(*(set(run.steps) for run in whole))) if whole else []
    if steps and not alive:  # the evaluations that did not come
        about = runs[0].summary
        end = (about.planned_steps or 0) * about.images_seen / max(1, about.step) / MINI_BATCH
        steps += np.arange(steps[-1] + steps[0], end + 1, steps[0]).tolist()
    classes = runs[0].summary.classes if runs else None
    if not steps or not classes:
        return None
    ordered = sorted(runs, key=lambda run: run.summary.seed)
    values = [dict(zip(run.steps, run.top1, strict=True)) for run in ordered]
    return Curves(
        seeds=tuple(run.summary.seed for run in ordered),
        steps=np.array(steps),
        top1=np.array([[known.get(step, 1 / classes) for step in steps] for known in values]),
        count=max(1, min(run.validation_count for run in whole)),
        chance=1 / classes,
    )


def paired(first: Curves, second: Curves) -> tuple[Curves, Curves] | None:
    """The curves of the seeds that both have; None where they have none in common."""
    seeds = tuple(seed for seed in first.seeds if seed in second.seeds)
    return (first.of(seeds), second.of(seeds)) if seeds else None


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
    diverged = [run.name for run in runs if run.summary.status is RunStatus.diverged]
    level = None if plain is None else float(target_of(plain.top1))
    fault = None
    if diverged:
        fault = f"the plain network {diverged[0]} diverged and sets no target"
    elif plain is None or level is None:
        fault = "the plain network has no evaluation"
    elif level <= (limit := learned_limit(plain.chance)):
        fault = f"the target {percent(level)} is at chance (not above {percent(limit)})"
    elif plain.top1.shape[-1] < 12:  # both ends of `gain_of_last_third` would have some in common
        fault = "the plain network has fewer than 12 evaluations, and may still climb"
    elif still_climbs(plain.top1.mean(0)):
        fault = (
            "the plain network still climbs: its last third gains more than a fifth of its "
            "plateau, or a tenth of what that leaves to 100 %; a smaller scale.compression trains "
            "longer"
        )
    return Target(plain, level, fault)


def percent(fraction: float) -> str:
    """0.722 as "72.2 %"."""
    return f"{100 * fraction:.1f} %"


def tenth(evaluations: int) -> int:
    """How many evaluations a plateau is the mean of, where a run has so many."""
    return min(evaluations, max(PLATEAU_LEAST, math.ceil(PLATEAU_SHARE * evaluations)))


def plateau(top1: Array) -> Array:
    """(..., E) -> (...): the mean of the last tenth."""
    return np.asarray(top1[..., -tenth(top1.shape[-1]) :].mean(-1))


def plateau_of(run: Run) -> float | None:
    """The plateau of one run; None before its first evaluation."""
    return float(plateau(np.array(run.top1))) if run.top1 else None


def target_of(plain: Array, share: float | None = None) -> Array:
    """(..., S, E) -> (...): the plain network's plateau, mean over seeds, less a point.

    Where `share` is given it is this share of the plateau.
    """
    level: Array = np.asarray(plateau(plain).mean(-1))
    return level - POINT if share is None else share * level


def gain_of_last_third(top1: Array) -> Array:
    """(..., E) -> (...): the plateau minus the mean of as many evaluations around two thirds."""
    evaluations = top1.shape[-1]
    width = tenth(evaluations)
    begin = max(0, round(2 * evaluations / 3 - width / 2))
    return np.asarray(plateau(top1) - top1[..., begin : begin + width].mean(-1))


def still_climbs(top1: Array) -> bool:
    """Whether a curve, shape (E,), still climbs, and so sets no target."""
    level = float(plateau(top1))
    allowed = min(CLIMB_SHARE * level, max(CLIMB_POINTS, CLIMB_REST * (1 - level)))
    return bool(gain_of_last_third(top1) > allowed)


def learned_limit(chance: float) -> float:
    """The accuracy above which a network has learned: twice chance (for 2 classes, 75 %)."""
    return min(2 * chance, (1 + chance) / 2)


def steps_to(steps: Array, top1: Array, target: Array, chance: float) -> tuple[Array, Array]:
    """When curves reach a target: the isotonic regression's crossing, interpolated linearly.

    The regression begins at (0, chance), which is known. It lies below the target up to the point
    at which the sum of (accuracy - target) is smallest, and above it after that, so that it need
    not be computed as a whole (Groeneboom's switch relation; Barlow et al., Statistical Inference
    under Order Restrictions, 1972).

    Args:
        steps: shape (E,).
        top1: shape (..., E).
        target: shape (...); above chance.
        chance: 1 / classes.

    Returns:
        Steps and whether the target was reached, each of shape (...); where not, the steps are
        the last evaluation's: censored.
    """
    x = np.concatenate([[0.0], steps])
    begin = np.full((*top1.shape[:-1], 1), chance)
    # A target at chance is met at once, by an interval that has a logarithm.
    level = np.maximum(target, chance * (1 + 1e-6))
    over = np.concatenate([begin, top1], -1) - level[..., None]
    points = over.shape[-1]
    sums = np.concatenate([np.zeros_like(begin), over.cumsum(-1)], -1)
    # The last point below, of those where the sum is smallest the last.
    below = points - 1 - sums[..., :0:-1].argmin(-1)
    reached = below < points - 1
    at, number = below[..., None], np.arange(points)
    smallest = np.take_along_axis(sums, at + 1, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        before = (smallest - sums[..., :-1]) / (at + 1 - number)
        after = (sums[..., 1:] - smallest) / (number - at)
    before = np.where(number <= at, before, -np.inf).max(-1)
    after = np.where(number > at, after, np.inf).min(-1)
    share = np.where(reached, -before / np.where(reached, after - before, 1.0), 0.0)
    following = np.minimum(below + 1, points - 1)
    return x[below] + share * (x[following] - x[below]), reached
