"""The small-image rule."""

import math

import pytest
import torch
from evaluation.networks import refusal, row_outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from bn_inception.network import Inception, NetworkConfig
from bn_inception.network.settings import MINIMUM_IMAGE_SIZE, MINIMUM_LAST_GRID, geometry

SIZES = st.integers(MINIMUM_IMAGE_SIZE, 1024)


@pytest.mark.parametrize(
    ("image_size", "strides", "expected"),
    [
        (224, (2, 2, 2), (28, 14, 7)),
        (112, (2, 2, 2), (14, 7, 4)),
        (96, (1, 2, 2), (24, 12, 6)),
        (64, (1, 2, 2), (16, 8, 4)),
        (32, (1, 2, 1), (16, 8, 4)),
        (16, (1, 1, 1), (16, 8, 4)),
        (13, (1, 1, 1), (13, 7, 4)),
    ],
)
def test_the_small_image_rule(image_size, strides, expected):
    found, sides = geometry(image_size)
    assert (found, (sides["3a"], sides["4a"], sides["5a"])) == (strides, expected)


@given(SIZES, SIZES)
def test_grids_are_large_enough_and_no_stride_is_lost_without_need(first, second):
    small, large = sorted((first, second))
    strides, sides = geometry(small)
    assert sides["5a"] == sides["5b"] >= MINIMUM_LAST_GRID
    assert sides["4d"] >= 5  # the auxiliary head's pooling
    total = math.prod(strides)
    assert total <= math.prod(geometry(large)[0])
    # One stride more would leave the last modules fewer than 4 positions a side.
    assert total == 8 or sides["5b"] < 2 * MINIMUM_LAST_GRID - 1


@settings(max_examples=10, deadline=None)
@given(st.integers(MINIMUM_IMAGE_SIZE, 300))
def test_the_network_has_these_grids(image_size):
    with torch.device("meta"):
        network = Inception(NetworkConfig(image_size=image_size, width=0.25), 10)
        images = torch.empty(2, 3, image_size, image_size)
    logits, rows = row_outputs(network, images)
    assert logits.auxiliary.shape == (2, 10)
    sides = {name: tuple(maps.shape[2:]) for name, maps in rows.items() if maps.dim() == 4}
    del sides["conv2_reduce"]
    assert sides == {name: (side, side) for name, side in geometry(image_size)[1].items()}


@given(st.integers(-5, MINIMUM_IMAGE_SIZE - 1))
def test_images_that_are_too_small_are_refused(image_size):
    assert f"image_size is {image_size}: allowed are 13" in refusal(geometry, image_size)
