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
    still_climbs,
    target_of,
)

STEPS = np.arange(1, 11) * 100.0


def reach(curve, target):
    at, reached = steps_to(STEPS[: len(curve)], np.array(curve), np.array(target), 0.01)
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


@pytest.mark.parametrize(
    ("curve", "target", "crossing"),
    [
        # Between evaluations it is interpolated, from chance at step 0 on.
        ([0.11, 0.21], 0.06, 50),
        ([0.11, 0.21], 0.16, 150),
        ([0.11, 0.21], 0.22, None),
        # A first evaluation above 0.2 at step 200 is luck; for good it is only at 800.
        ([0.1, 0.21, 0.12, 0.13, 0.14, 0.15, 0.16, 0.22, 0.23, 0.24], 0.2, 767),
    ],
)
def test_the_crossing(curve, target, crossing):
    at, reached = reach(curve, target)
    assert reached == (crossing is not None)
    assert at == pytest.approx(crossing or 100 * len(curve), abs=1)


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
