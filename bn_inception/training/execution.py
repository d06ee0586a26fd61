"""The pieces of the fast step, put together as a `Machine` has them."""

from typing import Any

import torch
from torch import Tensor, nn

from bn_inception.data import to_input
from bn_inception.network import computing
from bn_inception.training.capture import Captured
from bn_inception.training.machine import Machine
from bn_inception.training.step import Losses, losses

BACKEND = "inductor"
"""Of torch.compile."""


class Execution:
    """How one process of a run makes its updates.

    Args:
        machine: which pieces are on.
        device: of the network.
        processes: of the run. One has forward pass and loss compiled as one function; of several,
            each compiles its network, inside the wrapper that averages gradients, as that expects.

    Attributes:
        graph: for `train_step`.
    """

    def __init__(self, machine: Machine, device: torch.device, processes: int = 1) -> None:
        self.machine = machine
        self.device = device
        self._to_input: Any = to_input
        self._forward: Any = self._losses
        self._compile_network = machine.compile and processes > 1
        if machine.compile:
            self._to_input = _compiled(to_input)
            if processes == 1:
                self._forward = _compiled(self._losses)
        self.graph = Captured(device) if machine.cuda_graphs else None

    def wrapped(self, network: nn.Module) -> nn.Module:
        """What the wrapper of several processes is put around; parameters are `network`'s."""
        if not self._compile_network:
            return network
        wrapped: nn.Module = _compiled(network)
        return wrapped

    def to_input(self, images: Tensor, factors: Tensor) -> Tensor:
        """`data.to_input` in the machine's memory format."""
        inputs: Tensor = self._to_input(images, factors)
        return inputs.contiguous(memory_format=self.machine.memory_format)

    def forward(self, network: nn.Module, images: Tensor, labels: Tensor) -> Losses:
        """`step.losses` in the machine's precision, compiled or not."""
        result: Losses = self._forward(network, images, labels)
        return result

    def computing(self) -> torch.autocast:
        """The machine's precision, around a forward pass."""
        return computing(self.machine.precision, self.device)

    def _losses(self, network: nn.Module, images: Tensor, labels: Tensor) -> Losses:
        with self.computing():
            return losses(network, images, labels)


def _compiled(function: Any) -> Any:
    # One graph, or an error: a part that silently stays outside would be slow and unnoticed. One
    # shape: training batches are all of one size, and evaluation calls the network itself.
    return torch.compile(function, backend=BACKEND, fullgraph=True, dynamic=False)
