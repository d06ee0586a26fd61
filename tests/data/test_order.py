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


def stream(order, start, stop):
    """Epoch and image of every place, shape (2, places)."""
    return np.concatenate([order.batch(step) for step in range(start, stop)], axis=1)


@given(orders)
@settings(max_examples=150)
def test_every_image_exactly_once_an_epoch_and_none_lost_at_its_end(order):
    epochs = 3
    steps = -(-epochs * order.images // order.batch_size)
    numbers, indices = stream(order, 0, steps)
    assert numbers.dtype == indices.dtype == np.int64
    assert len(indices) == steps * order.batch_size
    for epoch in range(epochs):
        np.testing.assert_array_equal(np.sort(indices[numbers == epoch]), np.arange(order.images))
    assert (np.diff(numbers) >= 0).all()


@given(orders, st.integers(0, 40), st.integers(0, 10**12))
def test_a_start_at_any_step_equals_the_tail(order, start, far):
    fresh = TrainingOrder(
        order.images, order.batch_size, order.seed, order.within_shard_shuffling, order.shard_size
    )
    for base in (0, far):
        whole = stream(order, base, base + start + 5)
        tail = stream(fresh, base + start, base + start + 5)
        np.testing.assert_array_equal(whole[:, start * order.batch_size :], tail)


@given(orders, st.integers(0, 10**6))
def test_shards_are_the_stored_ones_whatever_the_seed(order, epoch):
    """Without shuffling inside, a shard is also read in the order in which it is stored."""
    stored = stored_order(order.images).tolist()
    size = order.shard_size
    shards = {stored[i]: stored[i : i + size] for i in range(0, len(stored), size)}
    shard_of = {image: first for first, shard in shards.items() for image in shard}
    rest = order.epoch(epoch).tolist()
    while rest:
        shard = shards.pop(shard_of[rest[0]])
        read, rest = rest[: len(shard)], rest[len(shard) :]
        assert sorted(read) == sorted(shard)
        assert order.within_shard_shuffling or read == shard


@pytest.mark.parametrize("shuffling", [False, True])
def test_neighbours_meet_again_without_within_shard_shuffling_only(shuffling):
    order = TrainingOrder(10_000, 32, 7, shuffling, 100)
    one, other = (order.epoch(epoch) for epoch in (0, 1))
    both = {(*pair,) for pair in np.stack([one[:-1], one[1:]], 1).tolist()} & {
        (*pair,) for pair in np.stack([other[:-1], other[1:]], 1).tolist()
    }
    # All but the 99 places where one shard follows another.
    assert len(both) < 500 if shuffling else 9_900 <= len(both) < 9_999


def test_a_late_step_computes_no_more_than_the_first():
    order = TrainingOrder(10_007, 32, 1, True, 100)
    for step in range(20_000_000, 20_000_100):
        order.batch(step)
    assert order.epoch.cache_info().misses == 1


def test_seeds_differ_from_their_first_epoch_on():
    orders = {TrainingOrder(500, 32, seed, True, 50).epoch(0).tobytes() for seed in (0, 1, 2**32)}
    assert len(orders) == 3


def test_the_order_never_changes():
    # Stored shards and interrupted runs rely on these numbers: a change is a change of format.
    assert stored_order(1_281_167)[:4].tolist() == [743618, 1093666, 842530, 1093514]
    epochs, indices = TrainingOrder(1_281_167, 4, 1, True, 1251).batch(400_000)
    assert epochs.tolist() == [1, 1, 1, 1]
    assert indices.tolist() == [656294, 876865, 430657, 786]
    assert image_generator(1, 2, 3).random(2).tolist() == [0.7565620620526586, 0.2983556232821195]


def test_image_generators_are_apart():
    keys = [(s, e, i) for s in (0, 1, 2**40) for e in range(5) for i in range(5)]
    assert len({tuple(image_generator(*key).random(4)) for key in keys}) == len(keys)
    firsts = np.array([image_generator(0, 0, i).random() for i in range(4000)])
    assert abs(firsts.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 0.05


@pytest.mark.parametrize(
    "arguments", [(0, 32, 0, True, 10), (10, 0, 0, True, 10), (10, 4, -1, True, 10)]
)
def test_bad_arguments(arguments):
    with pytest.raises(UserError):
        TrainingOrder(*arguments)
    with pytest.raises(UserError, match="shard_size"):
        OrderConfig(shard_size=0)
