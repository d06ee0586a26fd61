"""How images and BN's groups lie on processes; property tests of the arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_inception import UserError
from bn_inception.config import compose, run_config
from bn_inception.data.loader import shared_ranges
from bn_inception.data.order import TrainingOrder
from bn_inception.training.local_batch import local_batch, statement
from bn_inception.training.settings import BatchConfig, OptimizerConfig

orders = st.fixed_dictionaries(
    {
        "images": st.integers(1, 400),
        "seed": st.integers(0, 2**64 - 1),
        "within_shard_shuffling": st.booleans(),
        "shard_size": st.integers(1, 500),
    }
)


@given(orders, st.integers(1, 9), st.integers(2, 12), st.integers(0, 10**9))
def test_the_processes_parts_are_the_batch_of_one(arguments, size, each, step):
    local = local_batch(BatchConfig(size * each), size, normalized=False)
    # Every process has an order of its own.
    orders = [TrainingOrder(batch=size * each, **arguments) for _ in range(size)]
    read = [
        [part[local.places(rank)] for part in order.batch(step)]
        for rank, order in enumerate(orders)
    ]
    alone = TrainingOrder(batch=size * each, **arguments).batch(step)
    for whole, pieces in zip(alone, zip(*read, strict=True), strict=True):
        assert all(len(piece) == each for piece in pieces)
        assert np.array_equal(np.concatenate(pieces), whole)


@given(images=st.integers(1, 500), batch=st.integers(1, 70), size=st.integers(1, 9))
def test_every_held_out_image_is_judged_exactly_once(images, batch, size):
    if images < size:
        with pytest.raises(UserError, match=rf"{images} cannot be divided among {size}"):
            shared_ranges(images, batch, 0, size)
        return
    parts = [shared_ranges(images, batch, rank, size) for rank in range(size)]
    assert [index for part in parts for piece in part for index in piece] == list(range(images))
    assert len({len(part) for part in parts}) == 1  # they meet after every batch
    sizes = [len(piece) for part in parts for piece in part]
    assert min(sizes) >= 1 and max(sizes) <= batch + (size > 1)


@given(
    batch=st.integers(2, 300),
    group=st.integers(2, 64),
    processes=st.integers(1, 16),
    synchronized=st.booleans(),
)
def test_a_group_is_met_or_all_numbers_are_named(batch, group, processes, synchronized):
    config = BatchConfig(batch, norm_group=group, synchronized=synchronized)
    try:
        parts = local_batch(config, processes, normalized=True)
    except UserError as error:
        assert str(batch) in str(error)
        assert "batch." in str(error)
        return
    assert parts.images * processes == batch
    assert parts.group is not None and parts.group >= 2
    assert parts.groups * parts.group == parts.images * parts.sharers
    assert processes % parts.sharers == 0
    assert synchronized or parts.sharers == 1
    if parts.group != min(group, batch):
        assert not synchronized and parts.group == parts.images < group


@pytest.mark.parametrize(
    ("batch", "processes", "named"),
    [
        (BatchConfig(32), 3, "32 images cannot be divided among 3"),
        (BatchConfig(48), 1, "48 images are no whole number of groups of 32"),
        (BatchConfig(96), 2, r"a process holds 48 images \(96 on 2 processes\).*group of 32"),
        (BatchConfig(4, synchronized=False), 4, "groups of 1 image"),
    ],
)
def test_a_group_that_cannot_be_met(batch, processes, named):
    with pytest.raises(UserError, match=named):
        local_batch(batch, processes, normalized=True)


def test_a_network_without_bn_has_no_groups():
    assert local_batch(BatchConfig(48), 1, normalized=False).group is None


def test_the_papers_batch_needs_no_statement_and_another_has_one():
    def said(config, processes):
        parts = local_batch(config, processes, normalized=True)
        return statement(config, parts, processes, rate=0.36)

    assert said(BatchConfig(32), 1) is None
    x8 = said(BatchConfig(256, rate_factor=8), 1)
    assert (
        x8 is not None and "BN statistics over 32" in x8 and "rate 0.36 (batch.rate_factor 8)" in x8
    )
    two = said(BatchConfig(32), 2)
    assert two is not None and "16 each" in two and "synchronized over 2 processes" in two
    alone = said(BatchConfig(32, synchronized=False), 2)
    assert alone is not None and "over 16 (not 32: batch.synchronized=false)" in alone


def test_batch_x8_is_an_eighth_of_the_steps_at_eight_times_the_rate():
    one, eight = (
        run_config(compose("train", ["recipe=bn_x30", "scale=paper", f"batch={name}"]))
        for name in ("x1", "x8")
    )
    assert (eight.batch.images, eight.batch.norm_group) == (256, 32)
    assert eight.batch.rate_factor == eight.batch.images / one.batch.images
    assert eight.train.steps == one.train.steps / 8
    changed = {"decay_every": eight.optimizer.decay_every, "learning_rate": 0.36}
    assert eight.optimizer == OptimizerConfig(**{**vars(one.optimizer), **changed})
