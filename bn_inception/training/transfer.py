"""Batches on their way to the device: the next one is copied while the current step runs."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from bn_inception.data import TrainingBatch
from bn_inception.errors import UserError

T = TypeVar("T")


def on_device(batches: Iterator[TrainingBatch], device: torch.device) -> Iterator[TrainingBatch]:
    """Yield the same batches in the same order, their tensors on `device`.

    On CUDA they go through pinned memory on a stream of their own, one batch ahead of the step:
    the copy of the next one is under way before the current one's kernels are launched. What is
    yielded is ready for kernels on the current stream; the host waits for nothing. On the CPU
    nothing is read ahead or copied.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def sent(batch: TrainingBatch) -> tuple[TrainingBatch, torch.cuda.Event]:
        """The batch on the device, and the event after its last byte."""
        with torch.cuda.stream(stream):
            # A copy is only asynchronous out of pinned memory. torch's allocator keeps the pinned
            # pages from being used again before this stream has read them.
            there = _moved(_mapped(batch, Tensor.pin_memory), device)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        return there, copied

    for batch, copied in one_ahead(map(sent, batches)):
        current = torch.cuda.current_stream(device)
        # The event, not the whole stream: the next batch's copy is queued there already.
        current.wait_event(copied)
        for tensor in (batch.images, batch.factors, batch.labels):
            # Its memory belongs to the copying stream, which would give it to a later copy as soon
            # as nothing on the host holds the tensor; the step may still be reading it then.
            tensor.record_stream(current)
        yield batch


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield what `items` yields, each item once the next one has been asked for.

    A UserError in place of an item comes where that item would have come: the step that was due is
    still made, so that a run stops at bad input at the same step on every device. Every other
    exception strikes at once.
    """
    try:
        held = next(items)
    except StopIteration:
        return
    while True:
        try:
            following = next(items)
        except StopIteration:
            yield held
            return
        except UserError:
            yield held
            raise
        yield held
        held = following


def _moved(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    return _mapped(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _mapped(batch: TrainingBatch, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
    return batch._replace(
        images=change(batch.images), factors=change(batch.factors), labels=change(batch.labels)
    )
