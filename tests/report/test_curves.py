import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from bn_inception.report.curves import (
    gain_of_last_third,
    learned_limit,
    plateau,
    steps_to,
    target_of,
)

STEPS = np.arange(1, 11) * 100.0


def reach(curve, target, steps=None, chance=0.01):
    curve = np.array(curve)
    at, reached = steps_to(
        STEPS[: len(curve)] if steps is None else steps, curve, np.array(target), chance
    )
    return float(at), bool(reached)


def test_the_plateau_is_the_last_tenth_and_three_evaluations_at_least():
    curve = np.arange(40.0)
    assert plateau(curve) == np.mean([36, 37, 38, 39])
    assert plateau(curve[:12]) == np.mean([9, 10, 11])
    assert plateau(curve[:2]) == 0.5


def test_the_target_is_the_mean_plateau_less_a_point():
    curves = np.array([[0.1, 0.2, 0.2, 0.2], [0.1, 0.3, 0.3, 0.3]])
    assert target_of(curves) == pytest.approx(0.24)
    assert target_of(curves, 0.8) == pytest.approx(0.2)


def test_between_evaluations_the_crossing_is_interpolated_from_chance_at_step_0():
    assert reach([0.11, 0.21], 0.06) == (pytest.approx(50), True)
    assert reach([0.11, 0.21], 0.16) == (pytest.approx(150), True)
    assert reach([0.11, 0.21], 0.22) == (200, False)


def test_one_lucky_evaluation_is_not_the_crossing():
    # A first evaluation above 0.2 at step 200, and for good only at 800.
    curve = [0.1, 0.21, 0.12, 0.13, 0.14, 0.15, 0.16, 0.22, 0.23, 0.24]
    assert 700 < reach(curve, 0.2)[0] < 800


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
    curves = np.random.default_rng(0).random((3, 2, 10))
    at, reached = steps_to(STEPS, curves, np.full((3, 2), 0.6), 0.01)
    for index in np.ndindex(3, 2):
        alone = steps_to(STEPS, curves[index], np.array(0.6), 0.01)
        assert (at[index], reached[index]) == alone


def test_the_gain_of_the_last_third():
    curve = np.concatenate([np.linspace(0, 0.2, 60), np.full(30, 0.2)])
    assert gain_of_last_third(curve) < 0.02
    # Of an even rise the middles of the two windows are 0.95 and 2/3 of it.
    assert gain_of_last_third(np.linspace(0, 0.3, 300)) == pytest.approx(0.3 * 0.2833, abs=1e-3)


def test_learned_is_above_twice_chance():
    assert learned_limit(1 / 100) == 0.02
    assert learned_limit(1 / 2) == 0.75
