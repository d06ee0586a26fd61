"""The interval in which a rate lies that was counted on a sample."""

import math
from statistics import NormalDist

LEVEL = 0.95
"""Of every interval in a report."""


def wilson_interval(rate: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a rate over `count` images, fractions in [0, 1].

    Source: Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if count < 1:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = rate + z * z / (2 * count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
