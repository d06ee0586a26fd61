"""The pieces of the fast step: compiled as a `Machine` has it, captured as a CUDA graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bn_inception.data import to_input
from bn_inception.network import computing
from bn_inception.training.machine import Machine
from bn_inception.training.step import Losses, losses

BACKEND = "inductor"
"""Of torch.compile."""
WARM_UP = 3
"""Updates before the capture: torch.compile and cuDNN's choices come about in the first, and
torch's documentation asks for three."""


class Execution:
    """How one process of a run makes its updates.

    One process has forward pass and loss compiled as one function; of several, each compiles its
    network, inside the wrapper that averages gradients, as that expects.

    Attributes:
        graph: for `train_step`.
    """

    def __init__(self, machine: Machine, device: torch.device, processes: int = 1) -> None:
        self.machine, self.device = machine, device
        alone = processes == 1
        self._to_input = _compiled(to_input) if machine.compile else to_input
        self._losses = _compiled(self._eager) if machine.compile and alone else self._eager
        self._compile_network = machine.compile and not alone
        self.graph = Captured(device) if machine.cuda_graphs else None

    def wrapped(self, network: nn.Module) -> nn.Module:
        """What the wrapper of several processes is put around; parameters are `network`'s."""
        wrapped: nn.Module = _compiled(network) if self._compile_network else network
        return wrapped

    def to_input(self, images: Tensor, factors: Tensor) -> Tensor:
        """`data.to_input` in the machine's memory format."""
        inputs: Tensor = self._to_input(images, factors)
        return inputs.contiguous(memory_format=self.machine.memory_format)

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


class Captured:
    """Makes the updates of one training run on one CUDA device, from the fourth on as a graph.

    The first `WARM_UP` updates are made as they are, on a stream of their own: they count like any
    other, so that a resumed run makes the same updates. The next call captures the update, which
    computes nothing, and replays it; all later ones replay. Inputs and results lie in fixed
    buffers. All of it is ordered on the device; the host waits for nothing.

    Dropout's random numbers: a replay takes seed and offset from the device's default generator as
    they are at that moment. Seeded before every update, it draws what an update without a graph
    would draw. The learning rate is a value in memory on the device: a number would be a constant
    of the graph.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._rate = torch.zeros((), device=device)
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = torch.empty(0)
        self._results: tuple[Tensor, ...] = ()

    def rate(self, value: float) -> Tensor:
        """The learning rate on the device, a scalar, set to `value`."""
        return self._rate.fill_(value)

    def __call__(
        self,
        update: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        before_capture: Callable[[], None],
        images: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, ...]:
        """Make one update; the next call overwrites what it returns.

        Args:
            update: what to do; called for warm-up and capture alone, always the same.
            before_capture: drops the gradients, so that the graph makes its own.
            images: (N, 3, S, S), of one shape and memory format in all calls.
            labels: (N,).
        """
        self._calls += 1
        if self._calls <= WARM_UP:
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                results = update(images, labels)
            current.wait_stream(self._stream)
            for tensor in (images, labels):
                tensor.record_stream(self._stream)
            for result in results:
                result.record_stream(current)
            return results
        if self._graph is None:
            self._images, self._labels = torch.empty_like(images), torch.empty_like(labels)
            before_capture()
            self._graph = torch.cuda.CUDAGraph()
            # Only this thread's calls are forbidden while capturing: others copy the next batch.
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._results = update(self._images, self._labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._results
