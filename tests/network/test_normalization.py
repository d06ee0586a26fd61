"""BN as configured here, against the closed forms of BN section 3, in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bn_inception.network import PerActivationBatchNorm, running_statistics, set_statistics
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
