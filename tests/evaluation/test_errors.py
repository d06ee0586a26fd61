"""The interval of an error rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.evaluation.errors import Errors, wilson_interval


@pytest.mark.parametrize(
    ("wrong", "count", "low", "high"),
    # By hand from Wilson's formula; 10,050 of 50,000 is Figure 4's 20.1 %.
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (50, 100, 0.4038, 0.5962),
        (10_050, 50_000, 0.1975, 0.2045),
    ],
)
def test_the_interval_of_a_rate(wrong: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(wrong, count) == pytest.approx((low, high), abs=1e-4)


@given(count=st.integers(1, 100_000), share=st.floats(0, 1))
def test_an_interval_holds_its_rate_and_no_more_than_all(count: int, share: float) -> None:
    errors = Errors(round(share * count), 0, count)
    low, high = errors.as_dict()["top1_interval"]
    assert 0 <= low <= errors.top1 + 1e-12 and errors.top1 - 1e-12 <= high <= 1
