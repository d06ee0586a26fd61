"""The model behind `bn-inception plan`."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.benchmark.plan import Forecast

RUN = Forecast(
    updates=1000, evaluations=2, evaluation_images=500, parameters=10_000_000, processes=1,
    images=32, workers=1, compute_seconds=0.1, worker_images_per_second=1e9,
)  # fmt: skip
runs = st.builds(
    Forecast,
    updates=st.integers(1, 10**8),
    evaluations=st.integers(0, 1000),
    evaluation_images=st.integers(0, 50_000),
    parameters=st.integers(1, 10**8),
    processes=st.integers(1, 64),
    images=st.integers(1, 256),
    workers=st.integers(1, 64),
    compute_seconds=st.floats(1e-4, 100),
    worker_images_per_second=st.none() | st.floats(1e-3, 1e6),
)


def test_hours_by_hand() -> None:
    # 1000 updates of 32 images at 320 images/s are 100 s; 2 x 500 forward passes at three times
    # that rate are 1.04 s.
    assert RUN.hours * 3600 == pytest.approx(100 + 1000 / 960)
    # Four workers of 100 images/s are slower than two processes that learn 64 in 0.1 s.
    slow = replace(RUN, processes=2, workers=4, worker_images_per_second=100)
    assert slow.hours * 3600 == pytest.approx((1000 * 64 + 1000) / 400)
    # Where loading is not known it is left out.
    assert replace(RUN, worker_images_per_second=None).hours == pytest.approx(RUN.hours)


@given(runs)
def test_nothing_gets_slower_by_more_of_anything(run: Forecast) -> None:
    assert replace(run, workers=run.workers * 2).hours <= run.hours
    assert replace(run, compute_seconds=run.compute_seconds / 2).hours <= run.hours
    assert run.update_seconds in (run.loading_seconds, run.compute_seconds)
