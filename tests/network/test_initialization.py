import math

import pytest
import torch

from bn_inception.network import Inception, Initialization, NetworkConfig, Normalization, initialize
from bn_inception.network.initialization import RECTIFIED_VARIANCE

PLAIN = {"normalization": Normalization.none}
HE, XAVIER, TRUNCATED, CENTRED, SIGMOID = Initialization


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
        states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    initialize(network, torch.Generator().manual_seed(8))
    assert not torch.equal(
        network.state_dict()["classifier.weight"], states[0]["classifier.weight"]
    )


@pytest.fixture(scope="module")
def wide():
    """At the full width, where a layer has weights enough to measure; 100 classes."""
    networks = {}
    for rule in Initialization:
        networks[rule] = Inception(NetworkConfig(image_size=32, initialization=rule, **PLAIN), 100)
        initialize(networks[rule], torch.Generator().manual_seed(0))
    return networks


UNIFORM = math.sqrt(3)
"""Of a uniform distribution, the bound in standard deviations."""
CUT = 0.8796
"""Truncation at two standard deviations leaves so much of one."""


@pytest.mark.parametrize(
    ("rule", "layer", "deviation", "bound"),
    [
        (HE, "rows.4e.double_3x3_2.convolution", math.sqrt(2 / (256 * 9)), None),
        (HE, "classifier", math.sqrt(1 / 1024), None),
        (XAVIER, "rows.4e.double_3x3_2.convolution", math.sqrt(1 / (256 * 9)), UNIFORM),
        (CENTRED, "rows.4e.double_3x3_2.convolution",
         math.sqrt(1 / (RECTIFIED_VARIANCE * 256 * 9)), None),
        (TRUNCATED, "rows.conv1.depthwise", CUT * 1.0, 2 / CUT),
        (TRUNCATED, "rows.conv1.convolution", CUT * 1.0, 2 / CUT),
        (TRUNCATED, "rows.conv2_reduce.convolution", CUT * 0.1, 2 / CUT),
        (TRUNCATED, "rows.5a.projection.convolution", CUT * 0.1, 2 / CUT),
        (TRUNCATED, "rows.5a.reduce_3x3.convolution", CUT * 0.09, 2 / CUT),
        (TRUNCATED, "rows.5a.double_reduce.convolution", CUT * 0.09, 2 / CUT),
        (TRUNCATED, "rows.5a.conv_3x3.convolution", CUT * math.sqrt(2.6 / (192 * 9)), 2 / CUT),
        (SIGMOID, "rows.5a.conv_3x3.convolution",
         4 * math.sqrt(2 / ((192 + 320) * 9)), UNIFORM),
        (SIGMOID, "rows.5a.reduce_3x3.convolution", 4 * math.sqrt(2 / (1024 + 192)), UNIFORM),
        (SIGMOID, "rows.conv1.convolution", 4 * math.sqrt(2 / (24 + 64)), UNIFORM),
        # No sigmoid behind them.
        (SIGMOID, "rows.conv1.depthwise", math.sqrt(2 / (49 + 24 * 49)), UNIFORM),
        (SIGMOID, "classifier", math.sqrt(2 / (1024 + 100)), UNIFORM),
    ],
)  # fmt: skip
def test_every_layer_is_drawn_by_its_rule(wide, rule, layer, deviation, bound):
    weight = wide[rule].get_submodule(layer).weight.detach()
    assert weight.std().item() == pytest.approx(deviation, rel=0.05)
    if bound is None:
        assert weight.abs().max() > 3.5 * deviation
    else:
        assert 0.9 < weight.abs().max() / (bound * deviation) < 1.0001


@pytest.mark.parametrize("rule", list(Initialization))
def test_biases(wide, rule):
    """0.2 under `xavier`, as in Caffe, but in the classifiers; else 0."""
    for name, parameter in wide[rule].named_parameters():
        if name.endswith("bias"):
            expected = 0.2 if rule is XAVIER and "classifier" not in name else 0.0
            assert (parameter == torch.tensor(expected)).all(), name


def test_centred_he_has_filters_without_a_mean(wide):
    filters = wide[CENTRED].rows["5a"].conv_3x3.convolution.weight.detach().flatten(1)
    assert filters.mean(1).abs().max() < 1e-7


@pytest.mark.parametrize("rule", list(Initialization))
def test_the_gain_multiplies_convolutions_and_nothing_else(small, rule):
    plain, larger = small(initialization=rule), small(initialization=rule, initial_weight_gain=3.0)
    after = dict(larger.named_parameters())
    for name, before in plain.named_parameters():
        factor = 3.0 if name.endswith("convolution.weight") else 1.0
        assert torch.equal(before * factor, after[name]), name
