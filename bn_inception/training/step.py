"""One optimizer update: silent, no host synchronization, nothing written."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.network import AUXILIARY_LOSS_WEIGHT, Logits
from bn_inception.training.distributed import ALONE, World


class Losses(NamedTuple):
    """What a forward pass comes to, scalars, in float32 whatever the network computed in.

    `total`: main and weighted auxiliary cross-entropy; `main`: the first alone; `correct`: images
    whose highest main logit is their label.
    """

    total: Tensor
    main: Tensor
    correct: Tensor


class StepResult(NamedTuple):
    """What one update leaves on the device, scalars over the images of all processes.

    `loss`: main cross-entropy before the update; `correct`: as in `Losses`; `finite`: whether the
    whole loss was finite. A step whose loss is not finite changes no parameter.
    """

    loss: Tensor
    correct: Tensor
    finite: Tensor


Forward = Callable[[nn.Module, Tensor, Tensor], Losses]


def losses(network: nn.Module, images: Tensor, labels: Tensor) -> Losses:
    """Forward pass and loss: what torch.compile makes one function of.

    `network` returns `Logits` (with the auxiliary head) or main logits (N, classes), float32.
    """
    output = network(images)
    logits = output.main if isinstance(output, Logits) else output
    total = main = F.cross_entropy(logits, labels)
    if isinstance(output, Logits):
        total = main + AUXILIARY_LOSS_WEIGHT * F.cross_entropy(output.auxiliary, labels)
    return Losses(total, main, (logits.argmax(dim=1) == labels).sum())


def train_step(
    network: nn.Module,
    optimizer: torch.optim.SGD,
    images: Tensor,
    labels: Tensor,
    rate: float,
    world: World = ALONE,
    *,
    forward: Forward = losses,
) -> StepResult:
    """Make one update of `network` in training mode, on images (N, 3, S, S) and labels (N,).

    Each process of `world` has as many images of the update, and `network` averages their
    gradients. `optimizer` is fused. `forward` is `losses`, or what a machine makes of it.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    total, main, correct = forward(network, images, labels)
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        result = StepResult(main.detach(), correct, torch.isfinite(total))
        if world.size > 1:
            # One exchange: no process may make an update that another one skips.
            sums = world.total(torch.stack([value.double() for value in result]))
            result = StepResult(sums[0] / world.size, sums[1].long(), sums[2] == world.size)
        # The fused kernel skips the update where found_inf is 1, on the device, without a
        # synchronization: the parameters stay those that made the loss overflow.
        optimizer.found_inf = (~result.finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    return result
