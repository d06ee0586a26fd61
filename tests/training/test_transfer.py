"""Batches to the device: the same ones, in order, the next one asked for early, errors in place."""

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bn_inception.data import TrainingBatch
from bn_inception.errors import UserError
from bn_inception.training.batches import on_device, one_ahead


def batches(count: int, size: int = 8) -> list[TrainingBatch]:
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


def same(one: TrainingBatch, other: TrainingBatch) -> bool:
    return (
        all(torch.equal(a.cpu(), b) for a, b in zip(one[:3], other[:3], strict=True))
        and one.replaced == other.replaced
    )


def test_on_the_cpu_nothing_is_copied_or_read_ahead() -> None:
    given_batches = batches(3)
    read = iter(given_batches)
    moved = on_device(read, torch.device("cpu"))
    first = next(moved)
    assert first.images is given_batches[0].images
    assert next(read) is given_batches[1]  # nobody has taken it yet


@given(st.integers(0, 12), st.integers(0, 12))
def test_one_ahead_keeps_the_order_and_asks_for_one_more(count: int, taken: int) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(count):
            asked.append(number)
            yield number

    ahead = one_ahead(items())
    for number in range(min(taken, count)):
        assert next(ahead) == number
        assert len(asked) == min(number + 2, count)
    assert list(ahead) == list(range(min(taken, count), count))


@given(st.integers(0, 6))
def test_bad_input_strikes_where_it_stood(good: int) -> None:
    def items() -> Iterator[int]:
        yield from range(good)
        raise UserError("image 7 cannot be read")

    ahead = one_ahead(items())
    assert [next(ahead) for _ in range(good)] == list(range(good))
    with pytest.raises(UserError, match="image 7"):
        next(ahead)


def test_any_other_error_strikes_at_once() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise RuntimeError("a worker died")

    with pytest.raises(RuntimeError):
        next(one_ahead(items()))


def test_on_cuda_copies_start_early_and_the_step_waits_for_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The order of what CUDA is told, with stand-ins: whether it computes right needs a GPU."""
    told: list[str] = []
    step, copying = "step's stream", "copying stream"
    current = [step]
    events = itertools.count()

    class Event:
        def __init__(self) -> None:
            self.number = next(events)

        def record(self, stream: object) -> None:
            told.append(f"record {self.number} on {stream}")

    class StepsStream:
        def wait_event(self, event: Event) -> None:
            told.append(f"{step} waits for {event.number}")

    @contextmanager
    def on(stream: str) -> Iterator[None]:
        current[0], before = stream, current[0]
        yield
        current[0] = before

    def copy(tensor: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        assert non_blocking
        told.append(f"copy on {current[0]}")
        return tensor

    steps_stream = StepsStream()
    kept: list[tuple[int, object]] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copying)
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
    assert all(same(*pair) for pair in zip(moved, given_batches, strict=True))

    def sent(number: int) -> list[str]:
        return [f"copy on {copying}"] * 3 + [f"record {number} on {copying}"]

    assert told == [
        *sent(0),
        *sent(1),
        *(f"{step} waits for 0", "step 0"),
        *sent(2),
        *(f"{step} waits for 1", "step 1"),
        *(f"{step} waits for 2", "step 2"),
    ]
    # No tensor's memory may be used again before the step's stream has come past it.
    assert kept == [(tensor.data_ptr(), steps_stream) for batch in moved for tensor in batch[:3]]
    assert all(m.images is not g.images for m, g in zip(moved, given_batches, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_every_batch_arrives_whole_while_the_device_is_busy() -> None:
    device = torch.device("cuda")
    given_batches = batches(24, size=224)
    weights = torch.rand(2048, 2048, device=device)
    sums, replaced = [], []
    for batch in on_device(iter(given_batches), device):
        assert batch.images.device.type == "cuda"
        for _ in range(20):  # the device lags behind the host, so that memory would be reused early
            weights = weights @ weights
            weights /= weights.norm()
        sums.append((batch.images.long().sum(), batch.factors.double().sum(), batch.labels.sum()))
        replaced.append(batch.replaced)
        del batch
        gc.collect()
    for (images, factors, labels), expected in zip(sums, given_batches, strict=True):
        assert int(images) == int(expected.images.long().sum())
        assert float(factors) == pytest.approx(float(expected.factors.double().sum()))
        assert int(labels) == int(expected.labels.sum())
    assert replaced == [batch.replaced for batch in given_batches]
    again = list(on_device(iter(given_batches[:3]), device))
    assert all(same(*pair) for pair in zip(again, given_batches, strict=False))
