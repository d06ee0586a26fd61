"""A numerical check of BN section 3.3: the scale of the weights does not matter."""

from collections.abc import Iterator

import torch
from torch import nn

from bn_inception.network.normalization import (
    PerActivationBatchNorm,
    batch_norm_1d,
    batch_norm_2d,
)

FACTORS = (0.1, 3.0, 100.0)
"""Factors by which the weights are multiplied."""
# Large enough that epsilon, which breaks the identity, is negligible beside the variance.
_INPUT_SCALE = 1e6


def scale_invariance() -> tuple[float, float]:
    """Measure how far BN((aW)u) is from BN(Wu), and a dBN((aW)u)/d(aW) from dBN(Wu)/dW.

    In float64, for each kind of normalization of this project in training mode, behind a
    convolution or linear layer, and for each a of `FACTORS`.

    Returns:
        The largest difference of outputs and the largest difference of gradients, each relative to
        the largest magnitude of the expected values.
    """
    output_difference = gradient_difference = 0.0
    for layer, normalization, inputs, upstream in _cases():
        expected_output, expected_gradient = _run(layer, normalization, inputs, upstream, 1.0)
        for factor in FACTORS:
            output, gradient = _run(layer, normalization, inputs, upstream, factor)
            output_difference = max(output_difference, _relative(output, expected_output))
            gradient_difference = max(
                gradient_difference, _relative(factor * gradient, expected_gradient)
            )
    return output_difference, gradient_difference


def _cases() -> Iterator[tuple[nn.Conv2d | nn.Linear, nn.Module, torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for layer, normalization in (
        (nn.Conv2d(6, 8, 3, bias=False), batch_norm_2d(8)),
        (nn.Conv2d(6, 8, 3, bias=False), PerActivationBatchNorm(8, 5, 5)),
        (nn.Linear(6, 8, bias=False), batch_norm_1d(8)),
    ):
        layer, normalization = layer.double(), normalization.double()
        shape = (16, 6, 7, 7) if isinstance(layer, nn.Conv2d) else (16, 6)
        with torch.no_grad():
            layer.weight.normal_(generator=generator)
        inputs = torch.randn(shape, dtype=torch.float64, generator=generator)
        inputs *= _INPUT_SCALE
        output_shape = (16, 8, 5, 5) if isinstance(layer, nn.Conv2d) else (16, 8)
        upstream = torch.randn(output_shape, dtype=torch.float64, generator=generator)
        yield layer, normalization, inputs, upstream


def _run(
    layer: nn.Conv2d | nn.Linear,
    normalization: nn.Module,
    inputs: torch.Tensor,
    upstream: torch.Tensor,
    factor: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    weight = (factor * layer.weight).detach().requires_grad_()
    maps = torch.func.functional_call(layer, {"weight": weight}, (inputs,))
    output = normalization(maps)
    (gradient,) = torch.autograd.grad(output, weight, upstream)
    return output.detach(), gradient


def _relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())
