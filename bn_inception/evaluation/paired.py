"""Whether two networks differ, judged image by image on the images they share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from bn_inception.errors import UserError
from bn_inception.evaluation.members import require_same_images
from bn_inception.record import Predictions
from bn_inception.record.predictions import TOP

RESAMPLES = 10_000
"""Of the bootstrap: the ends of a 95 % interval are then themselves steady to about 1 %."""


@dataclass(frozen=True)
class PairedDifference:
    """The second predictions against the first, by one measure of error.

    Attributes:
        errors: of the first and of the second, images.
        difference: error of the second minus error of the first, a fraction: negative if it is
            better; `interval` is its 95 % bootstrap interval.
        only_first: images that only the first gets right.
        p_value: two-sided, of McNemar's exact test: the chance that networks of equal error split
            the images on which they disagree at least so unevenly.
    """

    count: int
    errors: tuple[int, int]
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Two prediction files compared, by top-1 and by top-5 error."""

    count: int
    top1: PairedDifference
    top5: PairedDifference


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947; the binomial, not chi-square)."""
    thrown = only_first + only_second
    return float(binomtest(only_first, thrown, 0.5).pvalue) if thrown else 1.0


def bootstrap_interval(
    only_first: int, only_second: int, count: int, *, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of (only_first - only_second) / count over resampled images.

    Each image adds -1, 0 or 1 to the difference, so that drawing `count` images with replacement
    is one draw from a multinomial of three outcomes: no image is touched.
    """
    both = count - only_first - only_second
    shares = np.array([only_first, only_second, both]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / count, [2.5, 97.5])
    return float(low), float(high)


def compare_predictions(
    first: Predictions,
    second: Predictions,
    *,
    names: tuple[str, str] = ("the first", "the second"),
    seed: int = 0,
) -> Comparison:
    """Compare two networks, or two ways to evaluate one, on the same images.

    `names` are for errors, `seed` is the bootstrap's.
    """
    if seed < 0:
        raise UserError(f"seed: {seed} is negative; give 0 or more")
    require_same_images(first, second, *names)
    ranks = first.ranks(), second.ranks()
    top1, top5 = (_difference(ranks[0] < place, ranks[1] < place, seed) for place in (1, TOP))
    return Comparison(len(first), top1, top5)


def _difference(first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int) -> PairedDifference:
    """Of two networks that get each image right or not."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return PairedDifference(
        count=len(first),
        errors=(int((~first).sum()), int((~second).sum())),
        difference=(only_first - only_second) / len(first),
        interval=bootstrap_interval(only_first, only_second, len(first), seed=seed),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
    )
