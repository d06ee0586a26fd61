"""One optimizer update, silent and without waiting for the device; what updates come to.

And where a diverged network first left the finite numbers.
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.network import AUXILIARY_LOSS_WEIGHT, Logits
from bn_inception.paper.results import MINI_BATCH
from bn_inception.record.metrics import TrainRecord
from bn_inception.record.summary import Divergence
from bn_inception.training.distributed import ALONE, World

LOSS = "loss"
"""Named where every layer's output is still finite."""


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


class TrainingMeter:
    """Sums since the last log step, kept on the device so that no step waits for the host.

    `batch` is the images in one update, over all processes.
    """

    def __init__(self, device: torch.device, batch: int) -> None:
        self._batch = batch
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, correct
        self._first_nonfinite = torch.zeros((), dtype=torch.int64, device=device)
        self._steps = 0
        self._timed_steps = 0  # what was restored took no time here
        self._seconds = 0.0
        self.start_clock()

    def add(self, result: StepResult, step: int) -> None:
        """Add update number `step` (from 1)."""
        self._sums += torch.stack([result.loss.double(), result.correct.double()])
        fresh = ~result.finite & (self._first_nonfinite == 0)
        self._first_nonfinite += fresh * step
        self._steps += 1
        self._timed_steps += 1

    def first_nonfinite(self) -> int | None:
        """The first update whose loss was not finite, if any (a synchronization on CUDA)."""
        return int(self._first_nonfinite) or None

    def record(self, step: int, rate: float) -> TrainRecord:
        """What was measured up to `step`, whose learning rate was `rate`; starts a new interval."""
        loss, correct = self._sums.tolist()
        seconds = self._seconds + time.perf_counter() - self._clock
        record = TrainRecord(
            step=step,
            equivalent_steps=step * self._batch / MINI_BATCH,
            loss=loss / self._steps,
            learning_rate=rate,
            images_per_second=self._timed_steps * self._batch / seconds if seconds > 0 else 0.0,
            top1=correct / (self._steps * self._batch),
        )
        self._sums.zero_()
        self._steps = self._timed_steps = 0
        self._seconds = 0.0
        self.start_clock()
        return record

    def start_clock(self) -> None:
        """Count time from here on."""
        self._clock = time.perf_counter()

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave out what happens inside: evaluations and checkpoints are not training."""
        self._seconds += time.perf_counter() - self._clock
        yield
        self.start_clock()

    def state(self) -> dict[str, float]:
        """The sums, for a checkpoint made inside an interval."""
        loss, correct = self._sums.tolist()
        return {"loss": loss, "correct": correct, "steps": self._steps}

    def restore(self, state: dict[str, float]) -> None:
        """Take up the sums of `state`."""
        self._sums.copy_(torch.tensor([state["loss"], state["correct"]], dtype=torch.float64))
        self._steps = int(state["steps"])


class Diverged(Exception):
    """The loss or a parameter is no longer finite: a result, not an error (BN section 4.2.2).

    `where` has the update, counted from 1, and the first layer, in forward order, that produced a
    non-finite output or holds a non-finite parameter, or `LOSS`.
    """

    def __init__(self, step: int, layer: str) -> None:
        self.where = Divergence(step, layer)
        super().__init__(self.where)


def require_finite(network: nn.Module, step: int) -> None:
    """Raise `Diverged` where a parameter is not finite (one synchronization)."""
    parameters = dict(network.named_parameters())
    finite = torch.stack([torch.isfinite(value).all() for value in parameters.values()])
    if not bool(finite.all()):
        name = list(parameters)[int(finite.int().argmin())]
        raise Diverged(step, name.rpartition(".")[0])


def first_nonfinite_layer(network: nn.Module, images: Tensor) -> str:
    """Name the first layer, in the order of a training forward pass, that is not finite.

    A copy of `network` runs on the mini-batch at hand, (N, 3, S, S).
    """
    probe = copy.deepcopy(network).train()
    names = {module: name for name, module in probe.named_modules()}
    found: list[str] = []

    def check(module: nn.Module, inputs: Any, output: Tensor) -> None:
        tensors = [output, *module.parameters(recurse=False)]
        if not found and not all(bool(torch.isfinite(t).all()) for t in tensors):
            found.append(names[module])

    for module in names:
        if not list(module.children()):
            module.register_forward_hook(check)
    with torch.no_grad():
        probe(images)
    return found[0] if found else LOSS
