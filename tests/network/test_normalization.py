"""BN against the closed forms of BN section 3 and Algorithm 2, in float64, and folded away."""

import copy

import numpy as np
import pytest
import torch
from evaluation.networks import pictures, refusal, small_network
from hypothesis import given, settings
from hypothesis import strategies as st

from bn_inception.network import (
    FirstConvolution,
    Nonlinearity,
    Normalization,
    PerActivationBatchNorm,
    folding,
    population_statistics,
    running_statistics,
    set_statistics,
)
from bn_inception.network.folding import fold, fold_checked
from bn_inception.network.normalization import EPSILON, MOMENTUM, BatchNorm


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["2d", "1d", "activation"]),
    images=st.integers(2, 6),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    groups=st.integers(1, 3),
)
def test_every_kind_is_the_closed_form(seed, kind, images, sides, groups):
    """Algorithm 1 with autograd's gradients, running statistics, inference; maps channels_last.

    Each group is a mini-batch of its own; the running statistics move by the mean of the groups.
    """
    generator = torch.Generator().manual_seed(seed)
    layer = PerActivationBatchNorm(*sides) if kind == "activation" else BatchNorm(sides[0])
    set_statistics(layer.double(), groups=groups)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2, generator=generator)
        layer.bias.uniform_(-1, 1, generator=generator)
    shape = (images * groups, *(sides[:1] if kind == "1d" else sides))
    axes = (0, 2, 3) if kind == "2d" else (0,)
    normal = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    scale = 10 ** torch.empty(()).uniform_(-2, 1.5, generator=generator)
    maps, upstream = scale * (normal[0] + 3 * normal[1].mean(0)), normal[2]
    if kind != "1d":
        maps = maps.contiguous(memory_format=torch.channels_last)
    features = [1 if axis in axes else side for axis, side in enumerate(shape)]
    gamma, beta = (
        parameter.detach().clone().view(features).requires_grad_()
        for parameter in layer.parameters()
    )

    def normalized(maps, mean, variance):
        return gamma * (maps - mean) / (variance + EPSILON).sqrt() + beta

    given_maps, plain = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    parts = plain.chunk(groups)
    means = [part.mean(axes, keepdim=True) for part in parts]
    variances = [part.var(axes, correction=0, keepdim=True) for part in parts]
    output = layer(given_maps)
    expected = torch.cat([*map(normalized, parts, means, variances)])
    torch.testing.assert_close(output, expected)
    output.backward(upstream)
    expected.backward(upstream)
    for found, wanted in ((given_maps, plain), (layer.weight, gamma), (layer.bias, beta)):
        torch.testing.assert_close(found.grad, wanted.grad.view_as(found))
    # Running statistics start at 0 and 1; the variance is the unbiased one, m / (m - 1).
    m = parts[0].numel() // gamma.numel()
    mean = MOMENTUM * sum(means) / groups
    variance = 1 - MOMENTUM + MOMENTUM * m / (m - 1) * sum(variances) / groups
    torch.testing.assert_close(layer.running_mean.view(features), mean)
    torch.testing.assert_close(layer.running_var.view(features), variance)
    assert layer.num_batches_tracked == 1
    # Inference knows no groups.
    torch.testing.assert_close(layer.eval()(maps[:1]), normalized(maps[:1], mean, variance))


def batches(count=3, size=5):
    generator = torch.Generator().manual_seed(3)
    # Batches of different brightness: the variance between batches is not in Algorithm 2's.
    return [torch.randn(size, 3, 16, 16, generator=generator) + k for k in range(count)]


@pytest.mark.parametrize("per_activation", [[], ["5a", "5b"]])
def test_every_layer_is_algorithm_2(per_activation):
    """Inputs of every BN layer, recorded where all layers use the mini-batch's statistics."""
    # In float64, where only the algorithm can differ.
    network = small_network(per_activation=per_activation, dropout=0.3).double()
    reference = small_network(per_activation=per_activation, dropout=0.3).double()
    inputs: dict[str, list[np.ndarray]] = {}
    for name, module in reference.named_modules():
        if isinstance(module, BatchNorm) and not name.startswith("auxiliary"):
            seen = inputs.setdefault(name, [])
            module.train().register_forward_pre_hook(
                lambda _, given, seen=seen: seen.append(given[0].numpy())
            )
    with torch.no_grad():
        for images in batches():
            reference(images.double())

    found = population_statistics(network, (images.double() for images in batches()))
    for name, recorded in inputs.items():
        layer = found.get_submodule(name)
        axes = (0,) if isinstance(layer, PerActivationBatchNorm) else (0, 2, 3)
        means = np.stack([x.mean(axes).ravel() for x in recorded])
        variances = np.stack([x.var(axes).ravel() for x in recorded])
        m = recorded[0].size // means.shape[1]
        assert np.allclose(layer.running_mean, means.mean(0), rtol=1e-9, atol=1e-12)
        assert np.allclose(layer.running_var, m / (m - 1) * variances.mean(0), rtol=1e-9)


def test_the_original_is_left_alone_and_the_copy_can_be_trained_on():
    network = small_network(dropout=0.5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = population_statistics(network, batches())
    torch.manual_seed(99)
    again = population_statistics(network, batches()).state_dict()
    assert all(torch.equal(again[key], value) for key, value in found.state_dict().items())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not found.training and not any(module.training for module in found.modules())
    assert {m.momentum for m in found.modules() if isinstance(m, BatchNorm)} == {MOMENTUM}
    # The parameters are the same, the auxiliary head's statistics too.
    for key, value in found.state_dict().items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(before[key], value)
        if key.startswith("auxiliary") and "running" in key:
            assert torch.equal(before[key], value)


def test_a_mini_batch_is_whole_whatever_training_makes_of_a_batch():
    network = small_network()
    expected = population_statistics(network, batches(2, 8))
    set_statistics(network, groups=4)
    found = population_statistics(network, batches(2, 8))
    for name, value in running_statistics(found).items():
        assert torch.equal(value, running_statistics(expected)[name])


def test_a_stop_is_noticed_between_two_mini_batches():
    asked = iter([False, True])
    read = iter(batches(3))
    assert population_statistics(small_network(), read, stopped=lambda: next(asked)) is None
    assert len(list(read)) == 1


def test_no_batch_is_refused_and_no_bn_is_left_as_it_is():
    assert "no mini-batch" in refusal(population_statistics, small_network(), [])
    plain = small_network(normalization=Normalization.none)
    found = population_statistics(plain, batches(1)).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in plain.state_dict().items())


SETTINGS = [
    {},
    {"nonlinearity": Nonlinearity.sigmoid, "convolution_bias": True},
    {"first_convolution": FirstConvolution.full, "local_response_normalization": True},
    {"per_activation": ["5a", "5b"], "dropout": 0.1},
    {"normalization": Normalization.none},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_folded_network_gives_the_same_logits(settings):
    network = small_network(**settings)
    with torch.no_grad():
        logits = network(pictures())
        folded = fold(network)(pictures())
    assert logits.std() > 1e-3
    tolerance = 1e-5 * max(1.0, float(logits.abs().max()))
    torch.testing.assert_close(folded, logits, rtol=0, atol=tolerance)


def test_what_is_folded_is_gone_what_cannot_be_stays_and_the_original_is_left_alone():
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


def test_a_folded_network_that_gives_other_logits_is_not_taken(monkeypatch):
    network, other = small_network(), small_network(seed=1)
    for size in (1, 1e5):  # the difference is relative to the largest logit
        network.classifier.weight.data *= size
        folded, difference = fold_checked(network)
        assert folded is not network and 0 < difference < 1e-5
    monkeypatch.setattr(folding, "fold", lambda network: other)
    kept, difference = fold_checked(network)
    assert kept is network and difference > 1e-3
