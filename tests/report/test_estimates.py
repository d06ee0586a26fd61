import math

import numpy as np
import pytest
from scipy import stats

from bn_inception.report.curves import Curves
from bn_inception.report.estimates import (
    PRIOR_DEGREES,
    SEED_LOG_STEPS,
    difference,
    difference_of_pairs,
    moderated,
    plateau_difference,
    steps_ratio,
)

STEPS = np.arange(1, 41) * 100.0


def curves(scale, seeds=1, steps=STEPS, top=0.2, count=10**9):
    """Curves that rise to `top`, `scale` times as slowly as the first; seeds a little apart."""
    rows = [
        0.01 + (top - 0.01) * (1 - np.exp(-steps / (500 * scale * 1.05**seed)))
        for seed in range(seeds)
    ]
    return Curves(tuple(range(seeds)), steps, np.array(rows), count, 0.01)


def test_one_seed_has_the_assumed_scatter_and_many_have_their_own():
    one = moderated(1.0, 0.01, None)
    assert one.high - one.value == pytest.approx(stats.t.ppf(0.975, PRIOR_DEGREES) * 0.1)
    assert one.source == "1 seed"
    values = np.random.default_rng(0).normal(0, 1, 400)
    without = (values.sum() - values) / 399
    many = moderated(float(values.mean()), 1e-9, without)
    student = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert (many.low, many.high) == pytest.approx(student, abs=2e-3)


def test_the_images_variance_is_not_divided_by_seeds():
    both = moderated(0.0, 0.01, None, 0.01)
    assert both.high == pytest.approx(math.hypot(0.196, 0.2776), abs=1e-3)


def test_a_difference_is_paired():
    # The seeds scatter by 10, their differences hardly.
    found = difference([1.0, 11.0, 21.0], [0.0, 10.1, 19.9], (1e-4, 1e-4))
    assert found.value == pytest.approx(1.0)
    assert 0.7 < found.low < found.high < 1.3


def test_a_ratio_of_steps_is_of_the_same_target_for_both():
    fast = curves(0.6, top=0.4)
    plain = curves(1.0)
    found = steps_ratio(fast, plain, plain)
    # 0.19 lies at 0.615 of the one's 300 steps, and at 2.94 of the other's 500.
    assert found.value == pytest.approx(0.615 * 300 / (2.94 * 500), rel=0.03)
    # The prior's 2.78 standard deviations, and hardly anything of so many images.
    half = stats.t.ppf(0.975, PRIOR_DEGREES) * SEED_LOG_STEPS * math.sqrt(2)
    assert math.log(found.high / found.value) == pytest.approx(half, rel=0.1)


def test_fewer_images_and_fewer_seeds_mean_a_wider_interval():
    def width(seeds, count):
        first, second = curves(0.3, seeds, count=count), curves(1.0, seeds, count=count)
        found = steps_ratio(first, second, second)
        return math.log(found.high / found.low)

    assert width(1, 1000) > width(1, 5000) > width(3, 5000) > width(5, 5000)


def test_a_run_that_never_gets_there_is_censored_and_not_dropped():
    short = curves(1.0, 2, STEPS[:6])
    found = steps_ratio(short, curves(1.0, 2), curves(1.0, 2))
    assert math.isinf(found.high) and 0 < found.low < found.value
    # Its length is the least that it needs: 600 steps of about 1,500.
    assert found.value == pytest.approx(0.4, abs=0.05)
    # The other way round the ratio has no lower end, unless the plain network is the slow one.
    assert steps_ratio(curves(0.5, 2), short, curves(1.0, 2)).low == 0


def test_another_seed_of_the_plain_network_moves_the_target_only():
    plain = curves(1.0, 3)
    found = steps_ratio(curves(0.3, 2), plain.of((0, 1)), plain)
    assert found.source == "2 seeds" and found.value == pytest.approx(0.3, rel=0.05)


def test_plateaus_are_compared_by_seed():
    found = plateau_difference(curves(1.0, 3, top=0.23), curves(1.0, 3))
    assert found.value == pytest.approx(0.03, abs=1e-3)
    assert found.low > 0.013


def test_pairs():
    # The approval ratings of Agresti's textbook: 150 and 86 of 1600 change sides; standard error
    # 0.0095.
    value, variance = difference_of_pairs(150, 86, 1600)
    assert value == 0.04
    assert math.sqrt(variance) == pytest.approx(0.0095, abs=2e-4)
    assert difference_of_pairs(0, 0, 100)[1] > 0


def test_the_only_seed_of_the_plain_network_stays_in_every_jackknife(recwarn):
    first, second = curves(0.4, 3), curves(0.3, 3)
    found = steps_ratio(first, second, curves(1.0, 1), 0.5)
    assert not recwarn.list
    assert 0 < found.low < found.value < found.high < 10 * found.low
