"""The model behind `bn-inception plan`."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception.benchmark.forecast import (
    Layout,
    Speed,
    Work,
    device_bytes,
    exchange_seconds,
    forecast,
    ring_bytes,
    run_folder_bytes,
)

WORK = Work(
    updates=1000,
    evaluations=2,
    validation_images=500,
    parameters=10_000_000,
    normalizations=70,
)
rates = st.floats(1e-3, 1e6)
works = st.builds(
    Work,
    updates=st.integers(1, 10**8),
    evaluations=st.integers(0, 1000),
    validation_images=st.integers(0, 50_000),
    parameters=st.integers(1, 10**8),
    normalizations=st.integers(0, 100),
)
layouts = st.builds(
    Layout,
    processes=st.integers(1, 64),
    images=st.integers(1, 256),
    sharers=st.integers(1, 8),
    workers=st.integers(1, 64),
)
speeds = st.builds(
    Speed,
    update_seconds=st.floats(1e-4, 100),
    worker_images_per_second=st.none() | rates,
    exchange_bytes_per_second=st.none() | rates,
    exchange_latency=st.floats(0, 1),
)


def test_one_process_that_never_waits() -> None:
    # 1000 updates of 32 images at 320 images/s are 100 s; 2 x 500 forward passes at three times
    # that rate are 1.04 s.
    found = forecast(WORK, Speed(0.1, 1e9), Layout(processes=1, images=32, sharers=1, workers=1))
    assert found.training_seconds == pytest.approx(100)
    assert found.evaluation_seconds == pytest.approx(1000 / 960)
    assert found.bound == "compute"
    assert found.hours == pytest.approx((100 + 1000 / 960) / 3600)
    assert found.process_hours == found.hours


def test_workers_that_are_too_slow_set_the_pace() -> None:
    layout = Layout(processes=2, images=32, sharers=1, workers=4)
    found = forecast(WORK, Speed(0.1, 100, 1e12), layout)
    assert found.loading_seconds == pytest.approx(64 / 400)
    assert found.training_seconds == pytest.approx(1000 * 64 / 400)
    assert found.evaluation_seconds == pytest.approx(1000 / 400)
    assert found.bound == "loading"
    assert found.process_hours == pytest.approx(2 * found.hours)


def test_the_exchange_is_a_ring_and_two_small_ones_for_each_shared_layer() -> None:
    layout = Layout(processes=4, images=8, sharers=4, workers=1)
    speed = Speed(0.1, None, exchange_bytes_per_second=6e9, exchange_latency=1e-4)
    # 2 x 3/4 x 40 MB at 6 GB/s are 10 ms; 1 + 2 x 70 small ones are 14.1 ms.
    assert exchange_seconds(WORK, speed, layout) == pytest.approx(0.010 + 0.0141)
    alone = replace(layout, sharers=1)
    assert exchange_seconds(WORK, speed, alone) == pytest.approx(0.0101)


def test_two_processes_send_all_bytes_once_and_many_nearly_twice() -> None:
    assert ring_bytes(100, 2) == 100
    assert ring_bytes(100, 1000) == pytest.approx(200, rel=2e-3)


def test_what_is_not_known_is_left_out_and_said() -> None:
    layout = Layout(processes=4, images=8, sharers=1, workers=1)
    found = forecast(WORK, Speed(0.1, None), layout)
    assert found.exchange_seconds is None and found.loading_seconds is None
    assert found.training_seconds == pytest.approx(100)
    assert found.bound == "compute"


@given(works, speeds, layouts)
def test_nothing_gets_slower_by_more_of_anything(work: Work, speed: Speed, layout: Layout) -> None:
    before = forecast(work, speed, layout)
    more_workers = forecast(work, speed, replace(layout, workers=layout.workers * 2))
    assert more_workers.hours <= before.hours
    faster = replace(speed, update_seconds=speed.update_seconds / 2)
    assert forecast(work, faster, layout).hours <= before.hours
    if speed.exchange_bytes_per_second is not None:
        wider = replace(speed, exchange_bytes_per_second=speed.exchange_bytes_per_second * 2)
        assert forecast(work, wider, layout).hours <= before.hours


@given(works, speeds, layouts)
def test_an_update_takes_as_long_as_what_it_waits_for(
    work: Work, speed: Speed, layout: Layout
) -> None:
    found = forecast(work, speed, layout)
    update = found.training_seconds / work.updates
    waited = found.loading_seconds if found.bound == "loading" else found.working_seconds
    assert update == pytest.approx(waited)


def test_memory_and_disk_by_hand() -> None:
    # Weights, gradients, momenta; two checkpoints with momenta and one without.
    assert device_bytes(100, 7) == 100 * 4 * 3 + 7
    assert run_folder_bytes(100, updates=49, log_every=50) == 100 * 4 * 5
    assert run_folder_bytes(0, updates=31_000_000, log_every=50) == 620_000 * 310
