"""The pieces of the fast step, put together as a `Machine` has them."""

from typing import Any

import torch
from torch import Tensor, nn

from bn_inception.data import to_input
from bn_inception.network import computing
from bn_inception.training.machine import Machine
from bn_inception.training.step import Losses, losses

BACKEND = "inductor"
"""Of torch.compile."""


class Execution:
    """How one process of a run makes its updates.

    One process has forward pass and loss compiled as one function; of several, each compiles its
    network, inside the wrapper that averages gradients, as that expects.
    """

    def __init__(self, machine: Machine, device: torch.device, processes: int = 1) -> None:
        self.machine, self.device = machine, device
        alone = processes == 1
        self._to_input = _compiled(to_input) if machine.compile else to_input
        self._losses = _compiled(self._eager) if machine.compile and alone else self._eager
        self._compile_network = machine.compile and not alone

    def wrapped(self, network: nn.Module) -> nn.Module:
        """What the wrapper of several processes is put around; parameters are `network`'s."""
        wrapped: nn.Module = _compiled(network) if self._compile_network else network
        return wrapped

    def to_input(self, images: Tensor, factors: Tensor) -> Tensor:
        """`data.to_input`, in channels_last memory."""
        inputs: Tensor = self._to_input(images, factors)
        return inputs.contiguous(memory_format=torch.channels_last)

    def forward(self, network: nn.Module, images: Tensor, labels: Tensor) -> Losses:
        """`step.losses` in the machine's precision, compiled or not."""
        result: Losses = self._losses(network, images, labels)
        return result

    def computing(self) -> torch.autocast:
        """The machine's precision, around a forward pass."""
        return computing(self.machine.precision, self.device)

    def _eager(self, network: nn.Module, images: Tensor, labels: Tensor) -> Losses:
        with self.computing():
            return losses(network, images, labels)


def _compiled(function: Any) -> Any:
    # One graph, or an error: a part that silently stays outside would be slow and unnoticed. One
    # shape: training batches are all of one size, and evaluation calls the network itself.
    return torch.compile(function, backend=BACKEND, fullgraph=True, dynamic=False)
