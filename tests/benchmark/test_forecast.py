"""The model behind `bn-inception plan`."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.benchmark.forecast import Forecast, ring_bytes

RUN = Forecast(
    updates=1000, evaluations=2, evaluation_images=500, parameters=10_000_000, normalizations=70,
    processes=1, images=32, sharers=1, workers=1, compute_seconds=0.1,
)  # fmt: skip
speeds = st.floats(1e-3, 1e6)
runs = st.builds(
    Forecast,
    updates=st.integers(1, 10**8),
    evaluations=st.integers(0, 1000),
    evaluation_images=st.integers(0, 50_000),
    parameters=st.integers(1, 10**8),
    normalizations=st.integers(0, 100),
    processes=st.integers(1, 64),
    images=st.integers(1, 256),
    sharers=st.integers(1, 8),
    workers=st.integers(1, 64),
    compute_seconds=st.floats(1e-4, 100),
    worker_images_per_second=st.none() | speeds,
    exchange_bytes_per_second=st.none() | speeds,
    exchange_latency=st.floats(0, 1),
)


def evaluating(run: Forecast) -> float:
    return run.hours * 3600 - run.training_seconds


def test_one_process_that_never_waits() -> None:
    # 1000 updates of 32 images at 320 images/s are 100 s; 2 x 500 forward passes at three times
    # that rate are 1.04 s.
    found = replace(RUN, worker_images_per_second=1e9)
    assert found.training_seconds == pytest.approx(100)
    assert evaluating(found) == pytest.approx(1000 / 960)
    assert found.bound == "compute"


def test_workers_that_are_too_slow_set_the_pace() -> None:
    found = replace(RUN, processes=2, workers=4, worker_images_per_second=100,
                    exchange_bytes_per_second=1e12)  # fmt: skip
    assert found.loading_seconds == pytest.approx(64 / 400)
    assert found.training_seconds == pytest.approx(1000 * 64 / 400)
    assert evaluating(found) == pytest.approx(1000 / 400)
    assert found.bound == "loading"


def test_the_exchange_is_a_ring_and_two_small_ones_for_each_shared_layer() -> None:
    shared = replace(RUN, processes=4, images=8, sharers=4, exchange_bytes_per_second=6e9,
                     exchange_latency=1e-4)  # fmt: skip
    # 2 x 3/4 x 40 MB at 6 GB/s are 10 ms; 1 + 2 x 70 small ones are 14.1 ms.
    assert shared.exchange_seconds == pytest.approx(0.010 + 0.0141)
    assert replace(shared, sharers=1).exchange_seconds == pytest.approx(0.0101)
    assert replace(shared, compute_seconds=0.02).bound == "exchange"
    assert ring_bytes(25, 2) == 100  # two send all bytes once, many nearly twice
    assert ring_bytes(25, 1000) == pytest.approx(200, rel=2e-3)


def test_what_is_not_known_is_left_out() -> None:
    found = replace(RUN, processes=4, images=8)
    assert found.exchange_seconds is None and found.loading_seconds is None
    assert found.training_seconds == pytest.approx(100)
    assert found.bound == "compute"


@given(runs)
def test_nothing_gets_slower_by_more_of_anything(run: Forecast) -> None:
    assert replace(run, workers=run.workers * 2).hours <= run.hours
    assert replace(run, compute_seconds=run.compute_seconds / 2).hours <= run.hours
    if run.exchange_bytes_per_second is not None:
        wider = replace(run, exchange_bytes_per_second=run.exchange_bytes_per_second * 2)
        assert wider.hours <= run.hours


@given(runs)
def test_an_update_takes_as_long_as_what_it_waits_for(run: Forecast) -> None:
    waited = run.loading_seconds if run.bound == "loading" else run.working_seconds
    assert run.training_seconds / run.updates == pytest.approx(waited)


def test_disk_by_hand() -> None:
    # Two checkpoints with momenta and one without; 310 bytes a log step.
    assert replace(RUN, parameters=100, updates=49).folder_bytes(50) == 100 * 4 * 5
    assert replace(RUN, parameters=0, updates=31_000_000).folder_bytes(50) == 620_000 * 310
