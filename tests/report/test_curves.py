"""Steps, plateaus and intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import isotonic_regression

from bn_inception.report import estimates
from bn_inception.report.curves import (
    Curves,
    gain_of_last_third,
    learned_limit,
    plateau,
    steps_to,
    still_climbs,
)
from bn_inception.report.estimates import moderated, steps_ratio

STEPS = np.arange(1, 41) * 100.0


def reach(curve, target):
    at, reached = steps_to(STEPS[: len(curve)], np.array(curve), np.array(target), 0.01)
    return float(at), bool(reached)


def test_the_plateau_is_the_last_tenth_and_three_evaluations_at_least():
    curve = np.arange(40.0)
    assert plateau(curve) == np.mean([36, 37, 38, 39])
    assert plateau(curve[:12]) == np.mean([9, 10, 11])
    assert plateau(curve[:2]) == 0.5


@given(st.lists(st.floats(0.0, 0.9), min_size=1, max_size=10), st.floats(0.02, 0.9))
def test_it_is_the_crossing_of_the_isotonic_regression(curve, target):
    fitted = isotonic_regression([0.01, *curve]).x
    at, reached = reach(curve, target)
    above = fitted >= target
    # What is within rounding of the target may fall on either side.
    if np.abs(fitted - target).min() < 1e-9:
        return
    assert reached == above.any()
    if reached:
        first = int(above.argmax())
        assert 100 * (first - 1) <= at <= 100 * first
        low, high = fitted[first - 1], fitted[first]
        assert at == pytest.approx(100 * (first - 1 + (target - low) / (high - low)), abs=1e-3)
    else:
        assert at == 100 * len(curve)


def test_further_axes_are_further_draws():
    draws = np.random.default_rng(0).random((3, 2, 10))
    at, reached = steps_to(STEPS[:10], draws, np.full((3, 2), 0.6), 0.01)
    for index in np.ndindex(3, 2):
        alone = steps_to(STEPS[:10], draws[index], np.array(0.6), 0.01)
        assert (at[index], reached[index]) == alone


def test_the_gain_of_the_last_third():
    curve = np.concatenate([np.linspace(0, 0.2, 60), np.full(30, 0.2)])
    assert gain_of_last_third(curve) < 0.02
    # Of an even rise the middles of the two windows are 0.95 and 2/3 of it.
    assert gain_of_last_third(np.linspace(0, 0.3, 300)) == pytest.approx(0.3 * 0.2833, abs=1e-3)


@pytest.mark.parametrize(
    ("level", "allowed"), [(0.05, 0.01), (0.16, 0.032), (0.72, 0.028), (0.95, 0.02)]
)
def test_how_much_of_a_gain_is_still_a_plateau(level, allowed):
    """A fifth of the plateau, or a tenth of what is missing and two points at least."""
    for gain, climbs in ((allowed - 0.001, False), (allowed + 0.001, True)):
        curve = np.array([level - gain] * 25 + [level] * 5)
        assert still_climbs(curve) is climbs


def test_learned_is_above_twice_chance():
    assert learned_limit(1 / 100) == 0.02
    assert learned_limit(1 / 2) == 0.75


# --- intervals


def curves(scale, seeds=1, steps=STEPS, top=0.2, count=10**9):
    """Curves that rise to `top`, `scale` times as slowly as the first; seeds a little apart."""
    rows = [
        0.01 + (top - 0.01) * (1 - np.exp(-steps / (500 * scale * 1.05**seed)))
        for seed in range(seeds)
    ]
    return Curves(tuple(range(seeds)), steps, np.array(rows), count, 0.01)


def test_one_seed_has_the_assumed_scatter_and_many_have_their_own():
    one = moderated(1.0, 0.01, None)
    assert one.high - one.value == pytest.approx(stats.t.ppf(0.975, estimates.PRIOR_DEGREES) * 0.1)
    assert one.source == "1 seed"
    values = np.random.default_rng(0).normal(0, 1, 400)
    many = estimates.mean(values, 4e-7)
    student = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert (many.low, many.high) == pytest.approx(student, abs=2e-3)


def test_the_images_variance_is_not_divided_by_seeds():
    both = moderated(0.0, 0.01, None, 0.01)
    assert both.high == pytest.approx(math.hypot(0.196, 0.2776), abs=1e-3)


def test_a_difference_is_paired():
    # The seeds scatter by 10, their differences hardly.
    found = estimates.mean(np.array([1.0, 11.0, 21.0]) - [0.0, 10.1, 19.9], 2e-4)
    assert found.value == pytest.approx(1.0)
    assert 0.7 < found.low < found.high < 1.3


def test_a_ratio_of_steps_is_of_the_same_target_for_both():
    fast = curves(0.6, top=0.4)
    plain = curves(1.0)
    found = steps_ratio(fast, plain, plain)
    # 0.19 lies at 0.615 of the one's 300 steps, and at 2.94 of the other's 500.
    assert found.value == pytest.approx(0.615 * 300 / (2.94 * 500), rel=0.03)
    # The prior's 2.78 standard deviations, and hardly anything of so many images.
    half = stats.t.ppf(0.975, estimates.PRIOR_DEGREES) * estimates.SEED_LOG_STEPS * math.sqrt(2)
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


def test_pairs():
    # The approval ratings of Agresti's textbook: 150 and 86 of 1600 change sides; standard error
    # 0.0095.
    value, variance = estimates.difference_of_pairs(150, 86, 1600)
    assert value == 0.04
    assert math.sqrt(variance) == pytest.approx(0.0095, abs=2e-4)
    assert estimates.difference_of_pairs(0, 0, 100)[1] > 0


def test_the_only_seed_of_the_plain_network_stays_in_every_jackknife(recwarn):
    first, second = curves(0.4, 3), curves(0.3, 3)
    found = steps_ratio(first, second, curves(1.0, 1), 0.5)
    assert not recwarn.list
    assert 0 < found.low < found.value < found.high < 10 * found.low
