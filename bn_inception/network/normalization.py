"""Batch normalization layers of BN section 3, as this project configures them."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-3
"""Added to the variance. BN gives no value; 1e-3 is from TensorFlow slim's inception_v2."""

MOMENTUM = 0.02
"""Weight of the newest batch in the running statistics, which no run's accuracy depends on.

1 / 0.02 = 50: they average about the last 50 mini-batches of 32, and so the weights of those steps.
Torch's 0.1 would average some 10 batches, 320 images; slim's 0.0003 would lag behind the weights
for thousands of steps. Runs are evaluated with Algorithm 2 (`network.population`).
"""


class Processes:
    """The processes whose images share the statistics of one mini-batch.

    Args:
        group: of torch.distributed; None is all processes.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.size = dist.get_world_size(group)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Processes":
        return self  # a copied network uses the same processes


class _TrainingStatistics(nn.modules.batchnorm._BatchNorm):
    """Which mini-batch a layer normalizes with in training (see `set_statistics`).

    Attributes:
        groups: number of consecutive parts of equal size into which the layer divides a batch;
            each is normalized as its own mini-batch (8 for groups of 32 in a batch of 256).
        processes: those that share one mini-batch; None if this process has all of it.
    """

    groups = 1
    processes: Processes | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, ...) to the same shape; N is a multiple of `groups` in training mode."""
        if self.training and self.groups > 1:
            return _grouped(self, inputs)
        if self.training and self.processes is not None:
            return _synchronized(self, inputs, self.processes)
        return super().forward(inputs)


class BatchNorm2d(_TrainingStatistics, nn.BatchNorm2d):
    """Convolutional BN whose mini-batch `set_statistics` may choose."""


class BatchNorm1d(_TrainingStatistics, nn.BatchNorm1d):
    """BN of features whose mini-batch `set_statistics` may choose."""


def batch_norm_2d(channels: int) -> nn.BatchNorm2d:
    """Convolutional BN (section 3.2): per channel, over the batch and all positions."""
    return BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def batch_norm_1d(features: int) -> nn.BatchNorm1d:
    """BN of a fully-connected layer (Algorithm 1): statistics, gamma and beta per feature."""
    return BatchNorm1d(features, eps=EPSILON, momentum=MOMENTUM)


class PerActivationBatchNorm(BatchNorm1d):
    """Non-convolutional BN of feature maps (section 4.2.3, the ensemble).

    Statistics, gamma and beta are per activation, that is per (channel, y, x), over the batch.
    Takes and returns (N, channels, height, width); parameters and buffers are vectors of
    channels x height x width in that order. Torch raises ValueError for a training batch
    of one image.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__(channels * height * width, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, height, width) to the same shape."""
        return super().forward(maps.flatten(1)).view(maps.shape)


def set_statistics(
    network: nn.Module, *, groups: int = 1, processes: Processes | None = None
) -> None:
    """Choose the mini-batches whose statistics the network's BN uses while training.

    Args:
        network: every BN layer in it is one of this module's.
        groups: equal parts of the batch, each a mini-batch of its own.
        processes: those whose batches together are one mini-batch; allowed with one group.
    """
    assert groups == 1 or processes is None
    for layer in network.modules():
        if isinstance(layer, _TrainingStatistics):
            layer.groups, layer.processes = groups, processes


def running_statistics(network: nn.Module) -> dict[str, Tensor]:
    """The network's running means and variances (not copies), by their `state_dict` names."""
    return {
        f"{name}.{kind}": statistic
        for name, layer in network.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for kind, statistic in (
            ("running_mean", layer.running_mean),
            ("running_var", layer.running_var),
        )
        if statistic is not None
    }


def _grouped(layer: nn.modules.batchnorm._BatchNorm, inputs: Tensor) -> Tensor:
    """BN of each group separately; the running statistics are updated by the mean over groups."""
    assert isinstance(layer, _TrainingStatistics)
    assert layer.running_mean is not None and layer.running_var is not None
    assert layer.momentum is not None and inputs.shape[0] % layer.groups == 0
    # Every group updates a copy. The update is linear, so the mean of the updated copies is the
    # running statistic updated by the mean over groups.
    means = layer.running_mean.repeat(layer.groups, 1)
    variances = layer.running_var.repeat(layer.groups, 1)
    outputs = [
        F.batch_norm(
            part, mean, variance, layer.weight, layer.bias, True, layer.momentum, layer.eps
        )
        for part, mean, variance in zip(inputs.chunk(layer.groups), means, variances, strict=True)
    ]
    with torch.no_grad():
        layer.running_mean.copy_(means.mean(0))
        layer.running_var.copy_(variances.mean(0))
        _count_batch(layer)
    return torch.cat(outputs)


def _synchronized(
    layer: nn.modules.batchnorm._BatchNorm, inputs: Tensor, processes: Processes
) -> Tensor:
    """BN over the batches of all `processes`, which are of equal size."""
    assert layer.running_mean is not None and layer.running_var is not None
    assert layer.momentum is not None
    output, mean, variance = _Synchronized.apply(
        inputs, layer.weight, layer.bias, layer.eps, processes
    )
    values = inputs.numel() // inputs.shape[1] * processes.size
    with torch.no_grad():
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(variance * (values / (values - 1)), layer.momentum)
        _count_batch(layer)
    result: Tensor = output
    return result


def _count_batch(layer: nn.modules.batchnorm._BatchNorm) -> None:
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)


class _Synchronized(torch.autograd.Function):
    """Algorithm 1 with its gradients (BN section 3), means taken over all processes.

    torch.nn.SyncBatchNorm supports only CUDA. This one needs one all-gather and one all-reduce for
    each layer and step. Statistics are computed in float32 or better.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, eps: float, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(inputs.dim()) if axis != 1]
        values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        variance, mean = torch.var_mean(values, axes, correction=0)
        own = torch.stack([mean, variance])
        gathered = [torch.empty_like(own) for _ in range(processes.size)]
        dist.all_gather(gathered, own, group=processes.group)
        means, variances = torch.stack(gathered).unbind(1)
        mean = means.mean(0)
        # Not E[x^2] - E[x]^2, which loses all digits if the mean is large.
        variance = variances.mean(0) + (means - mean).square().mean(0)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(inputs, weight, mean, inverse)
        ctx.processes, ctx.axes = processes, axes
        scale = weight * inverse
        output = torch.addcmul(_along(bias - mean * scale, values), values, _along(scale, values))
        ctx.mark_non_differentiable(mean, variance)
        return output.to(inputs.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, inverse = ctx.saved_tensors
        processes: Processes = ctx.processes
        gradient = upstream[0].to(mean.dtype)
        normalized = (inputs.to(mean.dtype) - _along(mean, inputs)) * _along(inverse, inputs)
        to_bias = gradient.sum(ctx.axes)
        to_weight = (gradient * normalized).sum(ctx.axes)
        # The parameters' gradients stay those of this process: DistributedDataParallel averages
        # them like those of every other layer.
        sums = torch.stack([to_bias, to_weight])
        dist.all_reduce(sums, group=processes.group)
        sums /= inputs.numel() // inputs.shape[1] * processes.size
        centred = gradient - _along(sums[0], inputs) - normalized * _along(sums[1], inputs)
        to_inputs = (centred * _along(weight * inverse, inputs)).to(inputs.dtype)
        return to_inputs, to_weight.to(weight.dtype), to_bias.to(weight.dtype), None, None


def _along(vector: Tensor, maps: Tensor) -> Tensor:
    """Reshape a vector (C,) so that it broadcasts over maps (N, C, ...)."""
    return vector.view(1, -1, *[1] * (maps.dim() - 2))
