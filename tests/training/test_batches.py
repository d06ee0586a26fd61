"""Batches to the device: the same ones, in order, the next one asked for early, errors in place."""

import gc
import itertools
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from bn_inception.data import TrainingBatch
from bn_inception.training.batches import on_device


def batches(count, size=8):
    generator = torch.Generator().manual_seed(count)
    return [
        TrainingBatch(
            torch.randint(0, 256, (4, 3, size, size), generator=generator, dtype=torch.uint8),
            torch.rand(4, 5, generator=generator),
            torch.randint(0, 10, (4,), generator=generator),
            [(f"image {number}", "damaged")],
        )
        for number in range(count)
    ]


def assert_same(moved, read):
    for one, other in zip(moved, read, strict=True):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(one[:3], other[:3], strict=True))
        assert one.replaced == other.replaced


def test_on_the_cpu_nothing_is_copied_or_read_ahead():
    given_batches = batches(3)
    read = iter(given_batches)
    first = next(on_device(read, torch.device("cpu")))
    assert first.images is given_batches[0].images
    assert next(read) is given_batches[1]  # nobody has taken it yet


def test_on_cuda_copies_start_early_and_the_step_waits_for_its_own(monkeypatch):
    """The order of what CUDA is told, with stand-ins: whether it computes right needs a GPU."""
    told: list[str] = []
    current = ["the step's stream"]
    events = itertools.count()

    class Event:
        def __init__(self):
            self.number = next(events)

        def record(self, stream):
            told.append(f"record {self.number} on {stream}")

    class StepsStream:
        def wait_event(self, event):
            told.append(f"wait for {event.number}")

    @contextmanager
    def on(stream):
        current[0], before = stream, current[0]
        yield
        current[0] = before

    def copy(tensor, device, *, non_blocking):
        assert non_blocking
        told.append(f"copy on {current[0]}")
        return tensor

    steps_stream = StepsStream()
    kept: list[tuple[int, object]] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "another")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: steps_stream)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor.clone())
    monkeypatch.setattr(Tensor, "record_stream", lambda t, s: kept.append((t.data_ptr(), s)))
    monkeypatch.setattr(Tensor, "to", copy)

    given_batches = batches(3)
    moved = []
    for batch in on_device(iter(given_batches), torch.device("cuda")):
        told.append(f"step {len(moved)}")
        moved.append(batch)
    assert_same(moved, given_batches)
    sent = [[*["copy on another"] * 3, f"record {number} on another"] for number in range(3)]
    assert told == [
        *(*sent[0], *sent[1], "wait for 0", "step 0"),
        *(*sent[2], "wait for 1", "step 1"),
        *("wait for 2", "step 2"),
    ]
    # No tensor's memory may be used again before the step's stream has come past it.
    assert kept == [(tensor.data_ptr(), steps_stream) for batch in moved for tensor in batch[:3]]
    assert all(m.images is not g.images for m, g in zip(moved, given_batches, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_every_batch_arrives_whole_while_the_device_is_busy():
    device = torch.device("cuda")
    given_batches = batches(24, size=224)
    weights = torch.rand(2048, 2048, device=device)
    sums = []
    for batch in on_device(iter(given_batches), device):
        assert batch.images.device.type == "cuda"
        for _ in range(20):  # the device lags behind the host, so that memory would be reused early
            weights = weights @ weights
            weights /= weights.norm()
        sums.append([tensor.double().sum() for tensor in batch[:3]])
        del batch
        gc.collect()
    for found, expected in zip(sums, given_batches, strict=True):
        exact = [float(tensor.double().sum()) for tensor in expected[:3]]
        assert [float(value) for value in found] == pytest.approx(exact)
    assert_same(list(on_device(iter(given_batches[:3]), device)), given_batches[:3])
