"""Folding BN into convolutions: the same function with fewer layers."""

import copy

import pytest
import torch
from evaluation.networks import small_network
from torch import nn

from bn_inception.network import FirstConvolution, Nonlinearity, Normalization
from bn_inception.network.folding import fold, largest_difference

SETTINGS = [
    {},
    {"nonlinearity": Nonlinearity.sigmoid, "convolution_bias": True},
    {"first_convolution": FirstConvolution.full, "local_response_normalization": True},
    {"per_activation": ["5a", "5b"], "dropout": 0.1},
    {"normalization": Normalization.none},
    {"caffe_padding": True, "convolution_bias": True},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_folded_network_gives_the_same_logits(settings: dict[str, object]) -> None:
    network = small_network(**settings)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    folded = fold(network)
    logits = network(images).detach()
    assert logits.std() > 1e-3
    assert largest_difference(network, folded, images) <= 1e-5 * max(1.0, float(logits.abs().max()))


def test_what_is_folded_is_gone_what_cannot_be_stays_and_the_original_is_left_alone() -> None:
    network = small_network(per_activation=["5b"])
    before = copy.deepcopy(network.state_dict())
    folded = fold(network)
    left = {type(module).__name__ for module in folded.modules()}
    assert "BatchNorm2d" not in left and "PerActivationBatchNorm" in left
    assert folded.auxiliary is None and network.auxiliary is not None
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    # A wrong folding would be noticed.
    first = next(module for module in folded.modules() if isinstance(module, nn.Conv2d))
    first.weight.data *= 1.01
    assert largest_difference(network, folded, torch.randn(2, 3, 16, 16)) > 1e-4
