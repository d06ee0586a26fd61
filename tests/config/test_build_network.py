"""The public call that builds a recipe's network."""

import pytest
import torch

import bn_inception
from bn_inception import UserError


def test_the_readings_reach_the_network():
    readings = {"pool_projection": 128, "first_convolution": "full", "convolution_bias": True}
    network = bn_inception.build_network(auxiliary_head=False, **readings)
    assert sum(p.numel() for p in network.parameters()) == 11_295_240


def test_main_and_auxiliary_logits_in_training_and_logits_in_evaluation():
    network = bn_inception.build_network("bn_x5", 7, width=0.125, image_size=32)
    images = torch.zeros(2, 3, 32, 32)
    main, auxiliary = network.train()(images)
    assert main.shape == auxiliary.shape == (2, 7)
    assert network.eval()(images).shape == (2, 7)


def test_the_seed_makes_the_weights():
    def weights(seed):
        network = bn_inception.build_network("bn_x5", 7, width=0.125, image_size=32, seed=seed)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"recipe": "bn_x6"}, "recipe=bn_x6.*close: bn_x"),
        ({"depth": 3}, "there is no key network.depth"),
        ({"pool_projection": 64}, "pool_projection"),
        ({"first_convolution": "whole"}, "separable, full"),
        ({"width": 0.0}, "width"),
        ({"image_size": 8}, "image"),
        ({"num_classes": 1}, "classes"),
    ],
)
def test_what_cannot_be_built_is_named(arguments, named):
    with pytest.raises(UserError, match=named):
        bn_inception.build_network(**arguments)
