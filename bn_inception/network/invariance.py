"""A numerical check of BN section 3.3: the scale of the weights does not matter."""

import torch
from torch import Tensor, nn

from bn_inception.network.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    PerActivationBatchNorm,
)

FACTORS = (0.1, 3.0, 100.0)
"""Factors by which the weights are multiplied."""
_INPUT_SCALE = 1e6
"""Large enough that epsilon, which breaks the identity, is negligible beside the variance."""


def scale_invariance() -> tuple[float, float]:
    """Measure how far BN((aW)u) is from BN(Wu), and a dBN((aW)u)/d(aW) from dBN(Wu)/dW.

    In float64, for each kind of normalization of this project in training mode, behind a
    convolution or linear layer, and for each a of `FACTORS`.

    Returns:
        The largest difference of outputs and the largest difference of gradients, each relative to
        the largest magnitude of the expected values.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    differences = [(0.0, 0.0)]
    for layer, normalization, inputs, upstream in (
        (nn.Conv2d(6, 8, 3, bias=False), BatchNorm2d(8), (16, 6, 7, 7), (16, 8, 5, 5)),
        (nn.Conv2d(6, 8, 3, bias=False), PerActivationBatchNorm(8, 5, 5), (16, 6, 7, 7),
         (16, 8, 5, 5)),
        (nn.Linear(6, 8, bias=False), BatchNorm1d(8), (16, 6), (16, 8)),
    ):  # fmt: skip
        given = normal(*layer.weight.shape), _INPUT_SCALE * normal(*inputs), normal(*upstream)
        output, gradient = _computed(layer, normalization.double(), *given, factor=1.0)
        for factor in FACTORS:
            scaled = _computed(layer, normalization, *given, factor=factor)
            differences.append(
                (_relative(scaled[0], output), _relative(factor * scaled[1], gradient))
            )
    outputs, gradients = zip(*differences, strict=True)
    return max(outputs), max(gradients)


def _computed(
    layer: nn.Module,
    normalization: nn.Module,
    weight: Tensor,
    inputs: Tensor,
    upstream: Tensor,
    *,
    factor: float,
) -> tuple[Tensor, Tensor]:
    """The normalized output of the layer with `factor` times `weight`, and the gradient to that."""
    weight = (factor * weight).requires_grad_()
    output = normalization(torch.func.functional_call(layer, {"weight": weight}, (inputs,)))
    (gradient,) = torch.autograd.grad(output, weight, upstream)
    return output.detach(), gradient


def _relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())
