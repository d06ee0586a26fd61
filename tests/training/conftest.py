"""Small networks and batches; what happens in the middle of a run, done to it by the test."""

import itertools
import os
from collections.abc import Callable

import pytest
import torch
from small_runs import Runs

from bn_inception.config import compose, run_config
from bn_inception.network import Inception, initialize
from bn_inception.training import loop

At = Callable[..., None]


def network_of(recipe, *given):
    """A recipe's narrowest network for 16x16 images of four classes, in training mode."""
    small = ["scale.image_size=16", "scale.width=0.0625", *given]
    network = Inception(run_config(compose("train", [f"recipe={recipe}", *small])).network, 4)
    initialize(network, torch.Generator().manual_seed(0))
    return network.to(memory_format=torch.channels_last).train()


def batch(images=8):
    """Random inputs in [-1, 1] and labels for it."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(images, 3, 16, 16, generator=generator) * 2 - 1
    return inputs, torch.randint(0, 4, (images,), generator=generator)


@pytest.fixture
def at_call(monkeypatch):
    """A function that has `act` done before call `number` of a function that the loop calls.

    Given `rank`, in that process alone.
    """

    def arrange(number, act, name="train_step", rank=0):
        original, calls = getattr(loop, name), itertools.count(1)

        def watched(*arguments, **named):
            if next(calls) == number and os.environ.get("RANK", "0") == str(rank):
                act()
            return original(*arguments, **named)

        monkeypatch.setattr(loop, name, watched)

    return arrange


@pytest.fixture
def runs(tmp_path, images):
    """Runs of BN-x5 in a folder of the test's own."""
    return Runs(tmp_path / "outputs", images, "recipe=bn_x5")
