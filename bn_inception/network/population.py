"""Population statistics, with which BN normalizes at inference (BN Algorithm 2)."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from bn_inception.errors import UserError
from bn_inception.network.inception import AuxiliaryHead, Inception
from bn_inception.network.normalization import _BatchNorm, set_statistics


def population_statistics(
    network: Inception,
    batches: Iterable[Tensor | None],
    *,
    stopped: Callable[[], bool] = lambda: False,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> Inception | None:
    """Copy a network and give its BN the population statistics of training mini-batches.

    BN Algorithm 2: E[x] is the mean over the mini-batches of their means, and Var[x] is m/(m-1)
    times the mean of their variances. m is the number of values that a mini-batch's mean is taken
    over: images x height x width for a channel of convolutional BN, images for an activation. The
    average is accumulated in float64.

    Every layer normalizes with the mini-batch's own statistics, as in training. The parameters are
    fixed and dropout is off. The auxiliary head keeps its running statistics.

    Args:
        network: not changed; nor are random generators.
        batches: mini-batches (N, 3, S, S); None if only other processes still have one.
        stopped: polled after every batch; where it is true, None is returned.
        total: sums a tensor over the processes that share the mini-batches.

    Returns:
        The copy, in evaluation mode, with the statistics as its running statistics.
    """
    result = copy.deepcopy(network).eval()
    set_statistics(result)  # each of `batches` is one mini-batch, and this process has all of it
    layers = [
        module
        for _, row in result.named_rows()
        if not isinstance(row, AuxiliaryHead)
        for module in row.modules()
        if isinstance(module, _BatchNorm)
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        # With momentum 1 torch's running statistics are the batch's own mean, and its variance
        # times m/(m-1).
        layer.train().momentum = 1.0
    statistics = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    # All sums in one vector, and the number of mini-batches behind them: one exchange.
    values, device = sum(map(len, statistics)), network.classifier.weight.device
    sums = torch.zeros(values + 1, dtype=torch.float64, device=device)
    with torch.no_grad():
        for images in batches:
            if images is not None:
                result(images)
                sums += torch.cat([*statistics, sums.new_ones(1)])
            if stopped():
                return None
        *totals, count = torch.split(total(sums), [*map(len, statistics), 1])
        if count == 0:
            raise UserError("population statistics: no mini-batch was given; give one or more")
        for statistic, its_total in zip(statistics, totals, strict=True):
            statistic.copy_(its_total / count)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.eval().momentum = momentum
    return result
