"""One optimizer update: silent, no host synchronization, nothing written."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.network import AUXILIARY_LOSS_WEIGHT, Logits
from bn_inception.training.distributed import ALONE, World


class StepResult(NamedTuple):
    """What one update leaves on the device, all without gradient.

    `loss`: main cross-entropy, scalar, before the update; `correct`: images whose highest main
    logit is their label, scalar; `finite`: whether the whole loss was finite, scalar bool. A step
    whose loss is not finite changes no parameter. All three are over the images of all processes.
    """

    loss: Tensor
    correct: Tensor
    finite: Tensor


def train_step(
    network: nn.Module,
    optimizer: torch.optim.SGD,
    images: Tensor,
    labels: Tensor,
    rate: float,
    world: World = ALONE,
) -> StepResult:
    """Make one update of `network` in training mode.

    Args:
        network: returns `Logits` (with the auxiliary head) or main logits (N, classes).
        optimizer: fused SGD.
        images: (N, 3, S, S) float, about [-1, 1].
        labels: (N,) int64.
        rate: learning rate of this update.
        world: the processes, each with as many images of the update; `network` averages their
            gradients.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    output = network(images)
    logits = output.main if isinstance(output, Logits) else output
    loss = main_loss = F.cross_entropy(logits, labels)
    if isinstance(output, Logits):
        auxiliary_loss = F.cross_entropy(output.auxiliary, labels)
        loss = main_loss + AUXILIARY_LOSS_WEIGHT * auxiliary_loss
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        result = StepResult(
            main_loss.detach(), (logits.argmax(dim=1) == labels).sum(), torch.isfinite(loss)
        )
        if world.size > 1:
            result = _over_processes(result, world)
        # The fused kernel skips the update where found_inf is 1, on the device, without a
        # synchronization: the parameters stay those that made the loss overflow.
        optimizer.found_inf = (~result.finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    return result


def _over_processes(result: StepResult, world: World) -> StepResult:
    """One exchange of three numbers: no process may make an update that another one skips."""
    loss, correct, finite = result
    totals = world.total(torch.stack([loss.double(), correct.double(), finite.double()]))
    return StepResult(totals[0] / world.size, totals[1].long(), totals[2] == world.size)
