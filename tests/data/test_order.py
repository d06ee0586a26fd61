"""The order of images: properties over random sizes, seeds and shards."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bn_inception.data.order import OrderConfig, TrainingOrder, image_generator, stored_order
from bn_inception.errors import UserError

orders = st.builds(
    TrainingOrder,
    images=st.integers(1, 300),
    batch=st.integers(1, 50),
    seed=st.integers(0, 2**64 - 1),
    within_shard_shuffling=st.booleans(),
    shard_size=st.integers(1, 80),
)


def stream(order: TrainingOrder, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    batches = [order.batch(step) for step in range(start, stop)]
    return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])


@given(orders)
@settings(max_examples=150, deadline=None)
def test_every_image_exactly_once_an_epoch_and_none_lost_at_its_end(order: TrainingOrder) -> None:
    epochs = 3
    steps = -(-epochs * order.images // order.batch_size)
    numbers, indices = stream(order, 0, steps)
    assert numbers.dtype == indices.dtype == np.int64
    assert len(indices) == steps * order.batch_size
    for epoch in range(epochs):
        np.testing.assert_array_equal(np.sort(indices[numbers == epoch]), np.arange(order.images))
    assert (np.diff(numbers) >= 0).all()


@given(orders, st.integers(0, 40), st.integers(0, 10**12))
@settings(max_examples=100, deadline=None)
def test_a_start_at_any_step_equals_the_tail(order: TrainingOrder, start: int, far: int) -> None:
    fresh = TrainingOrder(
        order.images, order.batch_size, order.seed, order.within_shard_shuffling, order.shard_size
    )
    for base in (0, far):
        whole = stream(order, base, base + start + 5)
        tail = stream(fresh, base + start, base + start + 5)
        skipped = start * order.batch_size
        np.testing.assert_array_equal(whole[0][skipped:], tail[0])
        np.testing.assert_array_equal(whole[1][skipped:], tail[1])


def neighbours(indices: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(indices[:-1].tolist(), indices[1:].tolist(), strict=True))


@pytest.mark.parametrize("shuffling", [False, True])
def test_neighbours_meet_again_without_within_shard_shuffling_only(shuffling: bool) -> None:
    order = TrainingOrder(10_000, 32, 7, shuffling, 100)
    kept = len(neighbours(order.epoch(0)) & neighbours(order.epoch(1))) / 10_000
    if shuffling:
        assert kept < 0.05
    else:
        assert kept >= 0.99  # all but the 99 places where one shard follows another
        assert not np.array_equal(order.epoch(0), order.epoch(1))


@given(st.integers(1, 400), st.integers(1, 90), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_without_within_shard_shuffling_shards_are_read_as_they_are_stored(
    images: int, size: int, seed: int, epoch: int
) -> None:
    stored = stored_order(images)
    follows = dict(zip(stored[:-1].tolist(), stored[1:].tolist(), strict=True))
    ends = set(stored[size - 1 :: size].tolist()) | {int(stored[-1])}
    order = TrainingOrder(images, 8, seed, False, size).epoch(epoch).tolist()
    for place, image in enumerate(order[:-1]):
        if image not in ends:
            assert order[place + 1] == follows[image]


def test_a_late_step_computes_no_more_than_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    permuted = TrainingOrder._epoch

    def counted(self: TrainingOrder, epoch: int) -> np.ndarray:
        computed.append(epoch)
        return permuted(self, epoch)

    monkeypatch.setattr(TrainingOrder, "_epoch", counted)
    order = TrainingOrder(10_007, 32, 1, True, 100)
    order.batch(20_000_000)
    assert computed == [20_000_000 * 32 // 10_007]
    for step in range(20_000_001, 20_000_100):
        order.batch(step)
    assert len(computed) == 1


@given(st.integers(1, 300), st.integers(1, 80), st.integers(0, 1000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_shards_are_the_stored_ones_whatever_the_seed(
    images: int, size: int, seed: int, shuffling: bool
) -> None:
    stored = stored_order(images)
    shards = {frozenset(stored[i : i + size].tolist()) for i in range(0, images, size)}
    order = TrainingOrder(images, 8, seed, shuffling, size)
    for epoch in (0, 1):
        rest = order.epoch(epoch).tolist()
        while rest:
            shard = next(s for s in shards if rest[0] in s)
            assert set(rest[: len(shard)]) == shard
            rest = rest[len(shard) :]


def test_seeds_differ_from_their_first_epoch_on() -> None:
    orders = {TrainingOrder(500, 32, seed, True, 50).epoch(0).tobytes() for seed in (0, 1, 2**32)}
    assert len(orders) == 3


def test_the_order_never_changes() -> None:
    # Stored shards and interrupted runs rely on these numbers: a change is a change of format.
    assert stored_order(1_281_167)[:4].tolist() == [743618, 1093666, 842530, 1093514]
    epochs, indices = TrainingOrder(1_281_167, 4, 1, True, 1251).batch(400_000)
    assert epochs.tolist() == [1, 1, 1, 1]
    assert indices.tolist() == [656294, 876865, 430657, 786]
    assert image_generator(1, 2, 3).random(2).tolist() == [0.7565620620526586, 0.2983556232821195]


def test_image_generators_are_pure_and_apart() -> None:
    def draw(*key: int) -> tuple[float, ...]:
        return tuple(image_generator(*key).random(4).tolist())

    assert draw(1, 2, 3) == draw(1, 2, 3)
    keys = [(s, e, i) for s in (0, 1, 2**40) for e in range(5) for i in range(5)]
    assert len({draw(*key) for key in keys}) == len(keys)
    firsts = np.array([draw(0, 0, i)[0] for i in range(4000)])
    assert abs(firsts.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 0.05


@pytest.mark.parametrize(
    "arguments", [(0, 32, 0, True, 10), (10, 0, 0, True, 10), (10, 4, -1, True, 10)]
)
def test_bad_arguments(arguments: tuple[int, int, int, bool, int]) -> None:
    with pytest.raises(UserError):
        TrainingOrder(*arguments)


def test_bad_shard_size() -> None:
    with pytest.raises(UserError, match="shard_size"):
        OrderConfig(shard_size=0)
