"""The interval of a rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.record.interval import wilson_interval


@pytest.mark.parametrize(
    ("wrong", "count", "low", "high"),
    # By hand from Wilson's formula; 201 of 1000 is Figure 4's 20.1 %.
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341)],
)
def test_the_interval_of_a_rate(wrong: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(wrong / count, count) == pytest.approx((low, high), abs=1e-5)


def test_the_interval_at_imagenets_size() -> None:
    low, high = wilson_interval(0.201, 50_000)
    assert (low, high) == pytest.approx((0.1975, 0.2045), abs=1e-4)


def test_at_one_half_and_at_the_ends() -> None:
    # By hand: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96.
    low, high = wilson_interval(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(0.3, 0) == (0.0, 1.0)


@given(count=st.integers(1, 100_000), share=st.floats(0, 1))
def test_an_interval_holds_its_rate_and_no_more_than_all(count: int, share: float) -> None:
    rate = round(share * count) / count
    low, high = wilson_interval(rate, count)
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1
    wider = wilson_interval(rate, count, 0.99)
    assert wider[0] <= low + 1e-12 and high <= wider[1] + 1e-12
