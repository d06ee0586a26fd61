"""A numerical check of BN section 3.3: the scale of the weights does not matter."""

import torch
from torch import Tensor, nn

from bn_inception.network.normalization import BatchNorm, PerActivationBatchNorm

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

    outputs, gradients = [0.0], [0.0]
    for layer, normalization, shape, grid in (
        (nn.Conv2d(6, 8, 3, bias=False), BatchNorm(8), (16, 6, 7, 7), (5, 5)),
        (nn.Conv2d(6, 8, 3, bias=False), PerActivationBatchNorm(8, 5, 5), (16, 6, 7, 7), (5, 5)),
        (nn.Linear(6, 8, bias=False), BatchNorm(8), (16, 6), ()),
    ):
        weight, inputs = normal(*layer.weight.shape), _INPUT_SCALE * normal(*shape)
        upstream = normal(16, 8, *grid)
        found = []
        for factor in (1.0, *FACTORS):
            scaled = (factor * weight).requires_grad_()
            maps = torch.func.functional_call(layer, {"weight": scaled}, (inputs,))
            output = normalization.double()(maps)
            (gradient,) = torch.autograd.grad(output, scaled, upstream)
            found.append((output.detach(), factor * gradient))
        for output, gradient in found[1:]:
            outputs.append(_relative(output, found[0][0]))
            gradients.append(_relative(gradient, found[0][1]))
    return max(outputs), max(gradients)


def _relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())
