"""Several seeds of one recipe: mean, spread, 95 % interval, and what is smaller than the noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from bn_inception.record.interval import LEVEL, wilson_interval
from bn_inception.report.runs import Run

NORMAL_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""1.96: half the width of a normal interval, in standard deviations."""


def student_t(degrees: float, level: float = LEVEL) -> float:
    """Half the width of a Student t interval, in standard errors.

    Args:
        degrees: of freedom, at least 1; not whole for Welch's intervals.
        level: of confidence, in (0, 1).
    """
    if not degrees >= 1:
        raise ValueError(f"{degrees} degrees of freedom")
    # With t = sqrt(degrees) tan(a) the probability within +-t is 2 c times the integral of
    # cos(a)^(degrees - 1) from 0 to a, where c makes the whole from -pi/2 to pi/2 be 1.
    log_c = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(math.pi) / 2
    # Simpson's rule by steps of 1/4000 of the range; the tail of 1 degree is the hardest (4 digits
    # at least at 95 %), and it is done exactly.
    if degrees == 1:
        return math.tan(math.pi / 2 * level)
    steps = 4000
    width = math.pi / 2 / steps
    heights = [math.cos(number * width) ** (degrees - 1) for number in range(steps + 1)]
    within, wanted = 0.0, level / (2 * math.exp(log_c))
    for number in range(0, steps, 2):
        first, middle, last = heights[number : number + 3]
        area = width / 3 * (first + 4 * middle + last)
        if within + area >= wanted:
            angle = width * (number + 2 * (wanted - within) / area)
            return math.sqrt(degrees) * math.tan(angle)
        within += area
    raise ValueError(f"level {level} is not in (0, 1)")


@dataclass(frozen=True)
class Spread:
    """Values of one quantity over seeds.

    Attributes:
        values: one a seed.
        mean: their mean.
        std: their standard deviation (n - 1); None for one value.
        low, high: 95 % interval of the mean, Student's; None for one value.
    """

    values: tuple[float, ...]
    mean: float
    std: float | None
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Summarize one or more values."""
    mean = fmean(values)
    if len(values) == 1:
        return Spread(tuple(values), mean, None, None, None)
    std = stdev(values)
    half = student_t(len(values) - 1) * std / math.sqrt(len(values))
    return Spread(tuple(values), mean, std, mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """One mean minus another.

    Attributes:
        value: the difference.
        low, high: its 95 % interval.
        source: of the interval, in words.
    """

    value: float
    low: float
    high: float
    source: str

    @property
    def within_noise(self) -> bool:
        """Whether 0 lies in the interval."""
        return self.low <= 0 <= self.high


def difference_of_seeds(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of `first` minus mean of `second`, two or more values each; Welch's interval."""
    variances = [stdev(values) ** 2 / len(values) for values in (first, second)]
    value = fmean(first) - fmean(second)
    source = f"Welch, {len(first)} and {len(second)} seeds"
    if not sum(variances):
        return Difference(value, value, value, source)
    degrees = sum(variances) ** 2 / sum(
        variance**2 / (len(values) - 1)
        for variance, values in zip(variances, (first, second), strict=True)
    )
    half = student_t(max(1.0, degrees)) * math.sqrt(sum(variances))
    return Difference(value, value - half, value + half, source)


def difference_of_rates(
    first: float, second: float, first_count: int, second_count: int
) -> Difference:
    """One rate minus another, each over so many images; the interval is Newcombe's.

    Taken as independent samples: for one set of images, which both were measured on, it is on the
    safe side (too wide). Source: Newcombe, Statistics in Medicine 17 (1998), 873-890, method 10.
    """
    value = first - second
    low_1, high_1 = wilson_interval(first, first_count)
    low_2, high_2 = wilson_interval(second, second_count)
    counts = sorted({first_count, second_count})
    return Difference(
        value,
        value - math.hypot(first - low_1, high_2 - second),
        value + math.hypot(high_1 - first, second - low_2),
        f"binomial, {' and '.join(f'{count:,}' for count in counts)} images",
    )


def difference_of_pairs(only_first: int, only_second: int, count: int) -> Difference:
    """One rate minus another, both measured on the same `count` images.

    Args:
        only_first, only_second: images that count for one rate and not for the other.
        count: of all images.

    Source: Agresti and Min, Statistics in Medicine 24 (2005), 729-740: half an image is added to
    each of the four cells before the normal interval is taken.
    """
    value = (only_first - only_second) / count
    first, second, total = only_first + 0.5, only_second + 0.5, count + 2
    centre = (first - second) / total
    variance = (first + second) / total - centre**2
    half = NORMAL_QUANTILE * math.sqrt(variance / total)
    low, high = min(centre - half, value), max(centre + half, value)
    return Difference(value, low, high, f"paired, {count:,} images")


def accuracy_difference(first: Sequence[Run], second: Sequence[Run]) -> Difference | None:
    """Mean maximum accuracy of some runs minus that of others.

    Returns:
        With Welch's interval where both have two seeds or more, else with the binomial one over
        the held-out images, which does not cover what another seed would change. None where a run
        has no evaluation.
    """
    maxima = [[run.maximum_top1 for run in runs] for runs in (first, second)]
    known = [[top1 for top1 in values if top1 is not None] for values in maxima]
    if not all(known) or known != maxima:
        return None
    if min(map(len, known)) >= 2:
        return difference_of_seeds(*known)
    # All seeds are measured on one and the same set: more of them are not more images.
    counts = [min(run.validation_count for run in runs) for runs in (first, second)]
    return difference_of_rates(fmean(known[0]), fmean(known[1]), counts[0], counts[1])


@dataclass(frozen=True)
class SeedGroup:
    """The runs that differ in their seed alone.

    Attributes:
        recipe: their recipe.
        overrides: `key=value` set otherwise than in the recipe.
        scale: their scale.
        runs: by seed.
        maximum: of top-1 accuracy, fractions; None where a run has no evaluation.
        steps_to_target: image-equivalent steps; None unless every run reached it.
        reached: how many did.
        against_baseline: the difference of maximum accuracy to the baseline's group; None for that
            group itself.
    """

    recipe: str
    overrides: tuple[str, ...]
    scale: str
    runs: tuple[Run, ...]
    maximum: Spread | None
    steps_to_target: Spread | None
    reached: int
    against_baseline: Difference | None

    @property
    def title(self) -> str:
        """The recipe, with what was set otherwise."""
        return " ".join([self.recipe, *self.overrides])


def distinct_seeds(runs: Sequence[Run]) -> list[Run]:
    """Of runs that differ in no setting and not in their seed, keep the most often evaluated one.

    Equal seeds give equal runs: to count them twice would make the spread look smaller.
    """
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        key = (run.summary.recipe, run.setting, run.overrides, run.summary.seed)
        if key not in kept or _weight(run) > _weight(kept[key]):
            kept[key] = run
    return list(kept.values())


def _weight(run: Run) -> tuple[bool, int]:
    return run.ended, len(run.steps)


def group_seeds(
    runs: Sequence[Run], target: float | None, baseline: str | None = None
) -> list[SeedGroup]:
    """Group runs by everything but their seed, in the order of their first run.

    Args:
        runs: any; one that goes on or was interrupted counts in no group, nor does a second one of
            the same seed.
        target: top-1 accuracy to count steps to; None for no count.
        baseline: name or path of a run of the group to which the others are compared.
    """
    members: dict[tuple[object, ...], list[Run]] = {}
    for run in distinct_seeds([run for run in runs if run.ended]):
        members.setdefault((run.summary.recipe, run.setting, run.overrides), []).append(run)
    reference = next((run for run in runs if baseline in (run.name, str(run.path))), None)
    baseline_runs = next(
        (
            group
            for group in members.values()
            if reference is not None and _same_but_seed(group[0], reference)
        ),
        None,
    )
    return [_group(group, target, baseline_runs) for group in members.values()]


def _same_but_seed(one: Run, other: Run) -> bool:
    return (one.summary.recipe, one.setting, one.overrides) == (
        other.summary.recipe,
        other.setting,
        other.overrides,
    )


def _group(runs: list[Run], target: float | None, baseline: list[Run] | None) -> SeedGroup:
    maxima = [run.maximum_top1 for run in runs if run.maximum_top1 is not None]
    reached = [] if target is None else [run.reaches(target) for run in runs]
    steps = [step[0] for step in reached if step is not None]
    compared = baseline is not None and baseline is not runs
    return SeedGroup(
        recipe=runs[0].summary.recipe,
        overrides=runs[0].overrides,
        scale=runs[0].summary.scale,
        runs=tuple(sorted(runs, key=lambda run: run.summary.seed)),
        maximum=spread(maxima) if len(maxima) == len(runs) else None,
        steps_to_target=spread(steps) if len(steps) == len(runs) else None,
        reached=len(steps),
        against_baseline=accuracy_difference(runs, baseline) if compared and baseline else None,
    )
