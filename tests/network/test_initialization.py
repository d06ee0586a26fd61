import math

import pytest
import torch
from torch import nn

from bn_inception.network import (
    Inception,
    Initialization,
    NetworkConfig,
    Nonlinearity,
    Normalization,
    initialize,
)
from bn_inception.network.initialization import RECTIFIED_VARIANCE

PLAIN = {"normalization": Normalization.none}


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("rule", list(Initialization))
def test_weights_depend_on_the_generator_alone(rule):
    config = NetworkConfig(width=0.25, image_size=32, initialization=rule)
    states = []
    for construction_seed in (1, 2):
        torch.manual_seed(construction_seed)
        network = Inception(config, 5)
        if construction_seed == 2:
            network = network.to(memory_format=torch.channels_last)
            network(torch.randn(2, 3, 32, 32))  # fills running statistics
        before = torch.get_rng_state()
        initialize(network, torch.Generator().manual_seed(7))
        assert torch.equal(torch.get_rng_state(), before)
        states.append(state(network))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    initialize(network, torch.Generator().manual_seed(8))
    assert not torch.equal(
        network.state_dict()["classifier.weight"], states[0]["classifier.weight"]
    )


def wide(rule: Initialization, **settings: object) -> Inception:
    config = NetworkConfig(image_size=32, initialization=rule, **(PLAIN | settings))
    network = Inception(config, 100)
    initialize(network, torch.Generator().manual_seed(0))
    return network


def unit_weight(network: Inception, row: str, unit: str) -> torch.Tensor:
    weight: torch.Tensor = network.rows[row].get_submodule(unit).convolution.weight.detach()
    return weight


@pytest.mark.parametrize(
    ("rule", "std", "bias"),
    [
        (Initialization.he, math.sqrt(2 / (256 * 9)), 0.0),
        (Initialization.xavier, math.sqrt(1 / (256 * 9)), 0.2),  # as in Caffe
        (Initialization.centred_he, math.sqrt(1 / (RECTIFIED_VARIANCE * 256 * 9)), 0.0),
    ],
)
def test_rules_of_one_width(rule, std, bias):
    network = wide(rule)
    weight = unit_weight(network, "4e", "double_3x3_2")
    assert weight.std().item() == pytest.approx(std, rel=0.01)
    if rule is Initialization.xavier:
        assert weight.abs().max() <= math.sqrt(3) * std
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            expected = 0.0 if "classifier" in name else bias
            assert (parameter == torch.tensor(expected)).all(), name


def test_truncated_normal_as_in_slim():
    network = wide(Initialization.truncated_normal)
    cases = [
        (network.rows["conv1"].depthwise.weight, 1.0),
        (network.rows["conv1"].convolution.weight, 1.0),
        (network.rows["conv2_reduce"].convolution.weight, 0.1),
        (unit_weight(network, "5a", "projection"), 0.1),
        (unit_weight(network, "5a", "reduce_3x3"), 0.09),
        (unit_weight(network, "5a", "double_reduce"), 0.09),
        (unit_weight(network, "5a", "conv_3x3"), math.sqrt(2.6 / (192 * 9))),
    ]
    for weight, std in cases:
        assert weight.abs().max() <= 2 * std
        # Truncation at two standard deviations leaves 0.88 of one.
        assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.05)


def test_centred_he():
    network = wide(Initialization.centred_he)
    weight = unit_weight(network, "4e", "double_3x3_2")
    assert weight.mean((1, 2, 3)).abs().max() < 1e-7
    # What it is for: a layer behind rectified unit Gaussians puts out unit variance and no mean.
    generator = torch.Generator().manual_seed(1)
    filters = unit_weight(network, "5a", "conv_3x3").flatten(1)
    outputs = torch.randn(500, filters.shape[1], generator=generator).relu() @ filters.T
    assert outputs.var().item() == pytest.approx(1, rel=0.05)
    assert abs(outputs.mean().item()) < 0.02


def test_xavier_for_sigmoids():
    network = wide(Initialization.xavier_sigmoid, nonlinearity=Nonlinearity.sigmoid)
    cases = [
        (unit_weight(network, "5a", "conv_3x3"), 4 * math.sqrt(6 / ((192 + 320) * 9))),
        (unit_weight(network, "5a", "reduce_3x3"), 4 * math.sqrt(6 / (1024 + 192))),
        (network.rows["conv1"].convolution.weight, 4 * math.sqrt(6 / (24 + 64))),
        (network.classifier.weight, math.sqrt(6 / (1024 + 100))),  # no sigmoid behind it
    ]
    for weight, bound in cases:
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


def test_a_plain_sigmoid_network_still_tells_images_apart(small):
    """The classifier's inputs, in float64: what differs between images, over the whole."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=generator) * 2 - 1
    shares = {}
    for rule in (Initialization.he, Initialization.xavier_sigmoid):
        network = small(initialization=rule, nonlinearity=Nonlinearity.sigmoid, **PLAIN).double()
        seen = []
        network.classifier.register_forward_hook(lambda *call, seen=seen: seen.append(call[1][0]))
        network.eval()(images)
        (features,) = seen
        spread = features.var(0, correction=0).mean().sqrt()
        shares[rule] = (spread / features.square().mean().sqrt()).item()
    assert shares[Initialization.xavier_sigmoid] > 100 * torch.finfo(torch.float32).eps
    assert shares[Initialization.xavier_sigmoid] > 100 * shares[Initialization.he]


@pytest.mark.parametrize("rule", list(Initialization))
def test_the_gain_multiplies_convolutions_and_nothing_else(small, rule):
    plain, larger = small(initialization=rule), small(initialization=rule, initial_weight_gain=3.0)
    for (name, before), (_, after) in zip(
        plain.named_parameters(), larger.named_parameters(), strict=True
    ):
        multiplied = name.endswith("convolution.weight")
        expected = before * 3.0 if multiplied else before
        assert torch.equal(expected, after), name


def test_under_bn_the_gain_changes_no_output(small):
    # Section 3.3; in evaluation mode the running statistics would have to follow.
    images = 100 * torch.randn(4, 3, 32, 32, dtype=torch.float64)
    expected = small().double()(images).main
    larger = small(initial_weight_gain=10.0).double()(images).main
    torch.testing.assert_close(larger, expected, rtol=0.05, atol=0.05)
