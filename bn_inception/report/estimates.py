"""Numbers with their 95 % intervals. Rules and their simulation: docs/statements.md."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bn_inception.report.curves import SHARES, Array, Curves, percent, steps_to, target_of

LEVEL = 0.95
"""Of every interval."""
PRIOR_DEGREES = 4
"""Degrees of freedom of the scatter that is assumed between seeds: it counts as five seeds' own."""
SEED_LOG_STEPS = 0.12
"""Assumed standard deviation, between the seeds of a recipe, of the logarithm of steps."""
SEED_ACCURACY = 0.04
"""The same of an accuracy's logit: 0.5 points at 15 %, 0.8 at 72 %."""
SHARED = 0.5
"""The part of an evaluation's binomial variance that all of a run share, of the same images."""
REDRAWS = 100


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    `low` and `high` are infinite where a run never got there, so that there is no end; `source` is
    what the interval is from, in words.
    """

    value: float
    low: float
    high: float
    source: str


def points(found: Estimate) -> str:
    """A difference of fractions with its interval, such as "+2.60 points (+1.9 to +3.3; ...)"."""
    return (
        f"{100 * found.value:+z.2f} points "
        f"({100 * found.low:+z.2f} to {100 * found.high:+z.2f}; {found.source})"
    )


def in_words(ratio: Estimate) -> str:
    """Such as "40.0 % (33.1 % to 48.4 %; 3 seeds)"."""
    if math.isinf(ratio.high):
        never = "a run never gets there"
        return f"more than {percent(ratio.value)} (at least {percent(ratio.low)}; {never})"
    return f"{percent(ratio.value)} ({percent(ratio.low)} to {percent(ratio.high)}; {ratio.source})"


def moderated(
    value: float,
    assumed: float,
    without: Array | None,
    images: float = 0.0,
    source: str | None = None,
) -> Estimate:
    """A mean over seeds, with an interval from the scatter that is assumed and the one observed.

    The two variances are pooled by their degrees of freedom (moderated t; Smyth, Statistical
    Applications in Genetics and Molecular Biology 3 (2004), article 3).

    Args:
        value: the mean.
        assumed: its variance by what is assumed of seeds.
        without: the value without each seed in turn (jackknife); None for one seed.
        images: a variance that no number of seeds makes smaller.
        source: of the interval, in words; None for the number of seeds.
    """
    count = 1 if without is None else len(without)
    degrees = PRIOR_DEGREES + count - 1
    variance = PRIOR_DEGREES * assumed
    if without is not None:
        variance += (count - 1) ** 2 / count * float(((without - without.mean()) ** 2).sum())
    quantile = (1 + LEVEL) / 2
    half = math.hypot(
        float(stats.t.ppf(quantile, degrees)) * math.sqrt(variance / degrees),
        float(stats.norm.ppf(quantile)) * math.sqrt(images),
    )
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    return Estimate(value, value - half, value + half, source or seeds)


def mean(values: Array, variance: float, images: float = 0.0) -> Estimate:
    """The mean over seeds, shape (S,); `variance` is assumed of one of them."""
    count = len(values)
    without = None if count == 1 else (values.sum() - values) / (count - 1)
    return moderated(float(values.mean()), variance / count, without, images)


def seed_variance(accuracy: float, chance: float) -> float:
    """The assumed variance of an accuracy between the seeds of a recipe."""
    return (SEED_ACCURACY * max(0.0, accuracy - chance) * (1 - accuracy)) ** 2


def run_variance(curves: Curves) -> float:
    """The assumed variance of one run's plateau: between seeds, and of its images."""
    level = float(curves.plateaus.mean())
    return seed_variance(level, curves.chance) + level * (1 - level) / curves.count


def mean_plateau(curves: Curves) -> Estimate:
    """The plateau, mean over seeds."""
    return mean(curves.plateaus, run_variance(curves))


def plateau_difference(first: Curves, second: Curves) -> Estimate:
    """Plateau of `first` minus that of `second`; both have the same seeds."""
    return mean(first.plateaus - second.plateaus, run_variance(first) + run_variance(second))


def _log_ratios(
    pair: tuple[Curves, Curves], tops: tuple[Array, Array], target: Array
) -> tuple[Array, Array, Array]:
    """Log ratio of steps, mean over seeds, and which runs of either arrived; target: (...)."""
    levels = np.broadcast_to(target[..., None], tops[0].shape[:-1])
    (ours, arrived), (theirs, others_arrived) = (
        steps_to(own.steps, top1, levels, own.chance) for own, top1 in zip(pair, tops, strict=True)
    )
    return (np.log(ours) - np.log(theirs)).mean(-1), arrived, others_arrived


def share_ratios(first: Curves, second: Curves, plain: Curves) -> tuple[float | None, ...]:
    """`steps_ratio` to each of `SHARES`, without intervals; None where a run never gets there."""
    pair, tops = (first, second), (first.top1, second.top1)
    found = [_log_ratios(pair, tops, target_of(plain.top1, share)) for share in SHARES]
    return tuple(math.exp(float(value)) if arrived.all() else None for value, arrived, _ in found)


def steps_ratio(
    first: Curves, second: Curves, plain: Curves, share: float | None = None
) -> Estimate:
    """Steps of `first` to the plain network's target, relative to those of `second`.

    The geometric mean of the ratios of each seed, which both have. A run that never gets there is
    censored: it counts with its length, and the ratio has no upper end (for a run of `second` that
    is not the plain network: no lower end). `share` is as in `target_of`.
    """
    against_plain = set(second.seeds) <= set(plain.seeds) and np.array_equal(
        plain.of(second.seeds).top1, second.top1
    )
    pair, tops = (first, second), (first.top1, second.top1)
    value, arrived, others_arrived = _log_ratios(pair, tops, target_of(plain.top1, share))
    # The bootstrap: what other seeds and other images would have given, by the assumed scatter.
    draws = np.random.default_rng(0)
    redrawn = _redrawn(plain, draws)
    places = [plain.seeds.index(seed) for seed in second.seeds] if against_plain else []
    other = redrawn[:, places] if against_plain else _redrawn(second, draws)
    ratios, _, _ = _log_ratios(pair, (_redrawn(first, draws), other), target_of(redrawn, share))
    assumed = float(ratios.var()) + 2 * SEED_LOG_STEPS**2 / len(first.seeds)
    without = []
    for left in first.seeds if len(first.seeds) > 1 else ():
        kept = [seed != left for seed in first.seeds]
        # The only seed of the plain network stays: without it there is no target.
        others = [seed != left for seed in plain.seeds]
        target = target_of(plain.top1[others] if any(others) else plain.top1, share)
        without.append(_log_ratios(pair, (first.top1[kept], second.top1[kept]), target)[0])
    found = moderated(float(value), assumed, np.array(without) if without else None)
    return Estimate(
        math.exp(found.value),
        math.exp(found.low) if against_plain or others_arrived.all() else 0.0,
        math.exp(found.high) if arrived.all() else math.inf,
        found.source,
    )


def _redrawn(curves: Curves, draws: np.random.Generator) -> Array:
    """The curves of other seeds on other images, shape (REDRAWS, S, E)."""
    shape = REDRAWS, *curves.top1.shape
    seeds = SEED_ACCURACY * draws.standard_normal((*shape[:-1], 1))
    images = math.sqrt(SHARED) * draws.standard_normal((*shape[:-1], 1))
    images = images + math.sqrt(1 - SHARED) * draws.standard_normal(shape)
    top1 = curves.top1
    height = (top1 - curves.chance) * (1 - top1)
    return top1 + height * seeds + np.sqrt(top1 * (1 - top1) / curves.count) * images


def difference_of_pairs(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """One rate minus another, both measured on the same `count` images, and its variance.

    `only_first` images count for one rate and not for the other. Source: Agresti and Min,
    Statistics in Medicine 24 (2005), 729-740: half an image is added to each of the four cells
    before the variance is taken.
    """
    first, second, total = only_first + 0.5, only_second + 0.5, count + 2
    variance = ((first + second) / total - ((first - second) / total) ** 2) / total
    return (only_first - only_second) / count, variance
