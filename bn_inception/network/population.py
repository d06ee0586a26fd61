"""Population statistics: what BN normalizes with at inference (BN Algorithm 2)."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bn_inception.errors import UserError
from bn_inception.network.inception import Inception
from bn_inception.network.normalization import PerActivationBatchNorm


def population_statistics(network: Inception, batches: Iterable[Tensor]) -> Inception:
    """Copy a network and give its BN the statistics of the population of training mini-batches.

    BN Algorithm 2: E[x] is the mean over the mini-batches of their means, and Var[x] is m/(m-1)
    times the mean of their variances. m is the number of values that a mini-batch's mean is taken
    over: images x height x width for a channel of convolutional BN, images for an activation. The
    average is accumulated in float64.

    In a pass every layer normalizes with the mini-batch's own statistics, as in training, so that
    a layer's input is what it was in training, not what the population statistics of the layers
    before would make of it. The parameters are fixed, dropout is off, the auxiliary head, which
    inference does not have, keeps its running statistics.

    The result is a function of the mini-batches alone: processes that are given the same ones
    hold the same statistics.

    Args:
        network: left as it is.
        batches: the network's inputs (N, 3, S, S), N at least 2, on its device; training
            mini-batches of the training size, at least one.

    Returns:
        The copy, in evaluation mode, with the statistics as its running statistics. A network
        without BN is copied.

    Raises:
        UserError: no batch was given.
    """
    result = copy.deepcopy(network).eval()
    layers = [
        module
        for _, row in result.named_rows()
        if row is not result.auxiliary
        for module in row.modules()
        if isinstance(module, nn.BatchNorm2d | PerActivationBatchNorm)
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        # With momentum 1 torch leaves in the running statistics the batch's own mean, and its
        # variance times m/(m-1).
        layer.train().momentum = 1.0
    means = [torch.zeros_like(_mean(layer), dtype=torch.float64) for layer in layers]
    variances = [torch.zeros_like(total) for total in means]
    count = 0
    with torch.no_grad():
        for images in batches:
            count += 1
            result(images)
            for layer, mean, variance in zip(layers, means, variances, strict=True):
                mean += _mean(layer)
                variance += _variance(layer)
        if count == 0:
            raise UserError("population statistics: no mini-batch was given; give one or more")
        for layer, momentum, mean, variance in zip(layers, momenta, means, variances, strict=True):
            layer.eval().momentum = momentum
            _mean(layer).copy_(mean / count)
            _variance(layer).copy_(variance / count)
    return result


def _mean(layer: nn.BatchNorm2d | PerActivationBatchNorm) -> Tensor:
    assert layer.running_mean is not None
    return layer.running_mean


def _variance(layer: nn.BatchNorm2d | PerActivationBatchNorm) -> Tensor:
    assert layer.running_var is not None
    return layer.running_var
