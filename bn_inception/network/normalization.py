"""Batch normalization (BN section 3) and GoogLeNet's local response normalization."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.errors import UserError

Network = TypeVar("Network", bound=nn.Module)

EPSILON = 1e-3
"""Added to the variance. BN gives no value; 1e-3 is from TensorFlow slim's inception_v2."""

MOMENTUM = 0.02
"""Weight of the newest batch in the running statistics, which no run's accuracy depends on.

They average about the last 1 / 0.02 = 50 mini-batches of 32. Torch's 0.1 would average some 10;
slim's 0.0003 would lag behind the weights for thousands of steps.
"""

SCALES = (0.1, 3.0, 100.0)
"""Factors by which `scale_invariance` multiplies weights."""

LRN_ALPHA = 1e-4 * 127.5**2
"""Caffe's 1e-4, which is for grey levels of 0 to 255, converted to images in [-1, 1]."""


class Processes:
    """The processes of a torch.distributed group (None: all) that share one mini-batch."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.size = dist.get_world_size(group)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Processes":
        return self  # a copied network uses the same processes


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """BN of features (N, C) (Algorithm 1), and of maps (N, C, H, W) (section 3.2).

    Statistics, gamma and beta are per channel, over the batch and all positions. In training the
    statistics are taken over what `set_statistics` chose.

    Attributes:
        groups: number of consecutive parts of equal size into which the layer divides a batch;
            each is normalized as its own mini-batch (8 for groups of 32 in a batch of 256).
        processes: those that share one mini-batch; None if this process has all of it.
    """

    groups = 1
    processes: Processes | None = None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON, momentum=MOMENTUM)

    def _check_input_dim(self, input: Tensor) -> None:
        """Torch's hook by which its own subclasses refuse other numbers of dimensions."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, ...) to the same shape; N is a multiple of `groups` in training mode."""
        if self.training and self.groups > 1:
            return self._grouped(inputs)
        if self.training and self.processes is not None:
            return self._synchronized(inputs, self.processes)
        return super().forward(inputs)

    def _grouped(self, inputs: Tensor) -> Tensor:
        assert self.momentum is not None and inputs.shape[0] % self.groups == 0
        # Every group updates a copy. The update is linear, so the mean of the updated copies is
        # the running statistic updated by the mean over groups.
        means = self.running_mean.repeat(self.groups, 1)
        variances = self.running_var.repeat(self.groups, 1)
        fixed = self.weight, self.bias, True, self.momentum, self.eps
        parts = zip(inputs.chunk(self.groups), means, variances, strict=True)
        outputs = [F.batch_norm(part, mean, variance, *fixed) for part, mean, variance in parts]
        with torch.no_grad():
            self.running_mean.copy_(means.mean(0))
            self.running_var.copy_(variances.mean(0))
            self.num_batches_tracked.add_(1)
        return torch.cat(outputs)

    def _synchronized(self, inputs: Tensor, processes: Processes) -> Tensor:
        """BN over the batches of all `processes`, which are of equal size."""
        assert self.momentum is not None
        output, mean, variance = _Synchronized.apply(
            inputs, self.weight, self.bias, self.eps, processes
        )
        values = inputs.numel() // inputs.shape[1] * processes.size
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        result: Tensor = output
        return result


class PerActivationBatchNorm(BatchNorm):
    """Non-convolutional BN of feature maps (section 4.2.3, the ensemble).

    Statistics, gamma and beta are per activation, that is per (channel, y, x), over the batch:
    vectors of channels x height x width in that order. Of one training image it raises ValueError.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__(channels * height * width)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, height, width) to the same shape."""
        return super().forward(maps.flatten(1)).view(maps.shape)


def set_statistics(
    network: nn.Module, *, groups: int = 1, processes: Processes | None = None
) -> None:
    """Choose the mini-batches whose statistics the network's BN uses while training.

    Args:
        network: its BN layers are this module's.
        groups: equal parts of the batch, each a mini-batch of its own.
        processes: those whose batches together are one mini-batch; allowed with one group.
    """
    assert groups == 1 or processes is None
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            layer.groups, layer.processes = groups, processes


def running_statistics(network: nn.Module) -> dict[str, Tensor]:
    """The network's running means and variances (not copies), by their `state_dict` names."""
    return {
        f"{name}.{kind}": getattr(layer, kind)
        for name, layer in network.named_modules()
        if isinstance(layer, BatchNorm)
        for kind in ("running_mean", "running_var")
    }


def population_statistics(
    network: Network,
    batches: Iterable[Tensor | None],
    *,
    stopped: Callable[[], bool] = lambda: False,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> Network | None:
    """Copy a network and give its BN the population statistics of training mini-batches.

    BN normalizes with these at inference (Algorithm 2): E[x] is the mean over the mini-batches of
    their means, and Var[x] is m/(m-1) times the mean of their variances. m is the number of values
    that a mini-batch's mean is taken over: images x height x width for a channel of convolutional
    BN, images for an activation. The average is accumulated in float64.

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
    # The auxiliary head does not run in evaluation mode; its statistics are each process's own.
    layers = [
        layer
        for name, layer in result.named_modules()
        if isinstance(layer, BatchNorm) and not name.startswith("auxiliary.")
    ]
    for layer in layers:
        # With momentum 1 torch's running statistics are the batch's own, variance times m/(m-1).
        layer.train().momentum = 1.0
    statistics = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    # All sums in one vector, and the number of mini-batches behind them: one exchange.
    sizes, device = [*map(len, statistics), 1], next(network.parameters()).device
    sums = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
    with torch.no_grad():
        for images in batches:
            if images is not None:
                result(images)
                sums += torch.cat([*statistics, sums.new_ones(1)])
            if stopped():
                return None
        *totals, count = torch.split(total(sums), sizes)
        if count == 0:
            raise UserError("population statistics: no mini-batch was given; give one or more")
        for statistic, its_total in zip(statistics, totals, strict=True):
            statistic.copy_(its_total / count)
    for layer in layers:
        layer.eval().momentum = MOMENTUM
    return result


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


class LocalResponseNormalization(nn.Module):
    """Divides by (k + alpha/5 * the sum of squares over 5 neighbouring channels) ** beta (GN).

    The constants k 1, alpha 1e-4 and beta 0.75 are those of Caffe's GoogLeNet. Its images are grey
    levels, c = 127.5 times larger, so this layer is x -> LRN(c x) / c; else its divisor would stay
    within 0.2 % of 1, and removing it (BN section 4.2.1) would remove nothing.

    It equals torch's local_response_norm in a third of the time on a CPU. Torch pools the squares
    in 3-d, which took more than a quarter of a training step; here a 1x1 convolution sums them.
    """

    neighbours: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        channel = torch.arange(channels)
        near = (channel[:, None] - channel[None, :]).abs() <= 2
        self.register_buffer("neighbours", near.float()[:, :, None, None], persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        squares = F.conv2d(maps.square(), self.neighbours)
        # Under autocast the sums would be bfloat16, with 3 digits.
        squares = squares.to(torch.promote_types(squares.dtype, torch.float32))
        inverse_root = torch.rsqrt(1.0 + LRN_ALPHA / 5 * squares)
        # The power of -0.75, as -0.5 - 0.25.
        return (maps * inverse_root * inverse_root.sqrt()).to(maps.dtype)


def scale_invariance() -> tuple[float, float]:
    """Measure how far BN((aW)u) is from BN(Wu), and a dBN((aW)u)/d(aW) from dBN(Wu)/dW.

    In float64, for each kind of normalization of this project in training mode, behind a
    convolution or linear layer, and for each a of `SCALES`.

    Returns:
        The largest difference of outputs and the largest difference of gradients, each relative to
        the largest magnitude of the expected values.
    """
    generator = torch.Generator().manual_seed(0)
    # Inputs so large that epsilon, which breaks the identity, is negligible beside the variance.

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    outputs, gradients = [0.0], [0.0]
    for layer, normalization, shape, grid in (
        (nn.Conv2d(6, 8, 3, bias=False), BatchNorm(8), (16, 6, 7, 7), (5, 5)),
        (nn.Conv2d(6, 8, 3, bias=False), PerActivationBatchNorm(8, 5, 5), (16, 6, 7, 7), (5, 5)),
        (nn.Linear(6, 8, bias=False), BatchNorm(8), (16, 6), ()),
    ):
        weight, inputs = normal(*layer.weight.shape), 1e6 * normal(*shape)
        upstream = normal(16, 8, *grid)
        found = []
        for factor in (1.0, *SCALES):
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
