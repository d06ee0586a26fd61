"""One update as a CUDA graph: captured once, then replayed by a single launch."""

from collections.abc import Callable

import torch
from torch import Tensor

Update = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

WARM_UP = 3
"""Updates before the capture: torch.compile and cuDNN's choices come about in the first, and
torch's documentation asks for three."""


class Captured:
    """Makes the updates of one training run on one CUDA device, from the fourth on as a graph.

    The first `WARM_UP` updates are made as they are, on a stream of their own: they count like any
    other, so that no state has to be put back and a resumed run makes the same updates. The next
    call captures the update, which computes nothing, and replays it; all later ones replay. Inputs
    are copied into fixed buffers, the results lie in fixed buffers until the next call. All of it
    is ordered on the device; the host waits for nothing.

    Dropout's random numbers: a replay takes seed and offset from the device's default generator as
    they are at that moment. Seeded before every update, it draws what an update without a graph
    would draw.

    The learning rate is a value in memory on the device: a number would be a constant of the graph.

    Args:
        device: a CUDA device.
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
        self, update: Update, before_capture: Callable[[], None], images: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        """Make one update.

        Args:
            update: what to do; called for warm-up and capture alone, always the same.
            before_capture: drops the gradients, so that the graph makes its own.
            images: (N, 3, S, S), of one shape and memory format in all calls.
            labels: (N,).

        Returns:
            What `update` returns; overwritten by the next call.
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
