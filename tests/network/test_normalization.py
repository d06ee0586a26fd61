"""BN against the closed forms of BN section 3 and Algorithm 2, in float64, and folded away."""

import copy

import numpy as np
import pytest
import torch
from evaluation.networks import pictures, refusal, small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

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

SEEDS = st.integers(0, 2**31)


def drawn(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Maps of varied scale and mean, and an upstream gradient."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.empty(1, shape[1], *[1] * (len(shape) - 2)).uniform_(
        0.01, 30, generator=generator
    )
    mean = torch.empty_like(scale).uniform_(-50, 50, generator=generator)
    maps = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + mean
    return maps, torch.randn(shape, generator=generator, dtype=torch.float64)


def layer_of(kind: str, *shape: int) -> BatchNorm:
    return PerActivationBatchNorm(*shape) if kind == "activation" else BatchNorm(shape[0])


def check_against_closed_form(
    layer: BatchNorm,
    maps: Tensor,
    upstream: Tensor,
    axes: tuple[int, ...],
    seed: int,
) -> None:
    """Algorithm 1, the gradients of section 3, and the running statistics; averages over axes."""
    layer = layer.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2, generator=generator)
        layer.bias.uniform_(-1, 1, generator=generator)
    shape = [1 if axis in axes else maps.shape[axis] for axis in range(maps.dim())]
    gamma, beta = layer.weight.detach().view(shape), layer.bias.detach().view(shape)
    m = maps.numel() // gamma.numel()

    mean = maps.mean(axes, keepdim=True)
    variance = (maps - mean).square().mean(axes, keepdim=True)
    inverse = (variance + EPSILON).rsqrt()
    normalized = (maps - mean) * inverse

    given_maps = maps.clone().requires_grad_()
    output = layer(given_maps)
    torch.testing.assert_close(output, gamma * normalized + beta)

    output.backward(upstream)
    g = upstream * gamma
    to_variance = (g * (maps - mean)).sum(axes, keepdim=True) * -0.5 * inverse**3
    to_mean = -(g * inverse).sum(axes, keepdim=True)
    expected = g * inverse + to_variance * 2 * (maps - mean) / m + to_mean / m
    torch.testing.assert_close(given_maps.grad, expected)
    torch.testing.assert_close(
        layer.weight.grad.view(shape), (upstream * normalized).sum(axes, keepdim=True)
    )
    torch.testing.assert_close(layer.bias.grad.view(shape), upstream.sum(axes, keepdim=True))

    # Running statistics start at 0 and 1; the variance is the unbiased one, m / (m - 1).
    torch.testing.assert_close(layer.running_mean.view(shape), MOMENTUM * mean)
    unbiased = variance * m / (m - 1)
    torch.testing.assert_close(layer.running_var.view(shape), (1 - MOMENTUM) + MOMENTUM * unbiased)

    layer.eval()
    inference = (maps - MOMENTUM * mean) * ((1 - MOMENTUM) + MOMENTUM * unbiased + EPSILON).rsqrt()
    torch.testing.assert_close(layer(maps), gamma * inference + beta)


@settings(max_examples=60, deadline=None)
@given(
    SEEDS,
    st.sampled_from(["2d", "1d", "activation"]),
    st.integers(2, 6),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
)
def test_every_kind_is_the_closed_form(seed, kind, batch, sides):
    shape = (batch, sides[0]) if kind == "1d" else (batch, *sides)
    maps, upstream = drawn(seed, *shape)
    axes = (0, 2, 3) if kind == "2d" else (0,)
    check_against_closed_form(layer_of(kind, *sides), maps, upstream, axes, seed)


def test_per_activation_takes_channels_last_maps():
    maps, _ = drawn(0, 4, 3, 5, 2)
    layer = PerActivationBatchNorm(3, 5, 2).double()
    expected = layer(maps)
    torch.testing.assert_close(layer(maps.to(memory_format=torch.channels_last)), expected)


def test_every_layer_of_the_network_is_configured_so(small):
    network = small(per_activation=["5b"])
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert {(layer.eps, layer.momentum, layer.affine) for layer in layers} == {(1e-3, 0.02, True)}


@given(seed=SEEDS, groups=st.integers(2, 4), kind=st.sampled_from(["2d", "1d", "activation"]))
@settings(deadline=None, max_examples=20)
def test_groups_are_mini_batches_of_their_own(seed: int, groups: int, kind: str) -> None:
    """Outputs and gradients group by group; the running statistics move by the groups' mean."""
    shape = (3 * groups, 4) if kind == "1d" else (3 * groups, 4, 2, 2)
    layers = [layer_of(kind, 4, 2, 2).double() for _ in range(groups + 1)]
    grouped, *apart = layers
    set_statistics(grouped, groups=groups)
    maps, upstream = drawn(seed, *shape)
    if kind != "1d":
        maps = maps.contiguous(memory_format=torch.channels_last)
    whole = maps.clone().requires_grad_()
    output = grouped(whole)
    output.backward(upstream)

    parts = [part.clone().requires_grad_() for part in maps.chunk(groups)]
    outputs = [layer(part) for layer, part in zip(apart, parts, strict=True)]
    for each, gradient in zip(outputs, upstream.chunk(groups), strict=True):
        each.backward(gradient)
    torch.testing.assert_close(output, torch.cat(outputs))
    torch.testing.assert_close(whole.grad, torch.cat([part.grad for part in parts]))
    torch.testing.assert_close(grouped.weight.grad, sum(layer.weight.grad for layer in apart))
    statistics = (running_statistics(layer).values() for layer in layers)
    for mine, *theirs in zip(*statistics, strict=True):
        torch.testing.assert_close(mine, torch.stack(theirs).mean(0))
    assert grouped.num_batches_tracked == 1
    # Inference knows no groups.
    torch.testing.assert_close(grouped.eval()(maps[:1]), grouped.eval()(maps)[:1])


def batches(count: int = 3, size: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    # Batches of different brightness: the variance between batches is not in Algorithm 2's.
    return [torch.randn(size, 3, 16, 16, generator=generator) + k for k in range(count)]


@pytest.mark.parametrize("per_activation", [[], ["5a", "5b"]])
def test_every_layer_is_algorithm_2(per_activation: list[str]) -> None:
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


def test_the_original_is_left_alone_and_the_copy_can_be_trained_on() -> None:
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


def test_a_mini_batch_is_whole_whatever_training_makes_of_a_batch() -> None:
    network = small_network()
    expected = population_statistics(network, batches(2, 8))
    set_statistics(network, groups=4)
    found = population_statistics(network, batches(2, 8))
    for name, value in running_statistics(found).items():
        assert torch.equal(value, running_statistics(expected)[name])


def test_a_stop_is_noticed_between_two_mini_batches() -> None:
    asked = iter([False, True])
    read = iter(batches(3))
    assert population_statistics(small_network(), read, stopped=lambda: next(asked)) is None
    assert len(list(read)) == 1


def test_no_batch_is_refused_and_no_bn_is_left_as_it_is() -> None:
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


def test_a_folded_network_that_gives_other_logits_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, other = small_network(), small_network(seed=1)
    for size in (1, 1e5):  # the difference is relative to the largest logit
        network.classifier.weight.data *= size
        folded, difference = fold_checked(network)
        assert folded is not network and 0 < difference < 1e-5
    monkeypatch.setattr(folding, "fold", lambda network: other)
    kept, difference = fold_checked(network)
    assert kept is network and difference > 1e-3
