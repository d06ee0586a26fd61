"""Folding BN into convolutions: the same function with fewer layers."""

import copy

import pytest
import torch
from evaluation.networks import pictures, small_network

from bn_inception.network import FirstConvolution, Nonlinearity, Normalization
from bn_inception.network.folding import fold

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
    with torch.no_grad():
        logits = network(pictures())
        folded = fold(network)(pictures())
    assert logits.std() > 1e-3
    tolerance = 1e-5 * max(1.0, float(logits.abs().max()))
    torch.testing.assert_close(folded, logits, rtol=0, atol=tolerance)


def test_what_is_folded_is_gone_what_cannot_be_stays_and_the_original_is_left_alone() -> None:
    network = small_network(per_activation=["5b"])
    before = copy.deepcopy(network.state_dict())
    folded = fold(network)
    left = {name.split(".")[1] for name in folded.state_dict() if "running_mean" in name}
    assert left == {"5b"}
    assert folded.auxiliary is None and network.auxiliary is not None
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
