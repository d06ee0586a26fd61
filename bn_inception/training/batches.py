"""The images that one process of a run reads, and their way to its device."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from bn_inception.data import (
    ImageSource,
    Sources,
    TrainingBatch,
    TrainingOrder,
    ValidationBatch,
    default_workers,
    parallel,
    to_input,
    training_batches,
    validation_batches,
)
from bn_inception.data.loader import shared_ranges
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.settings import RunConfig

T = TypeVar("T")

EVALUATION_BATCH = 64
"""Images in an evaluation batch: bounds memory; the result does not depend on it."""


class Batches:
    """One process's part of a run's mini-batches and of the held-out images.

    All processes of `world` have the same number of batches.
    """

    def __init__(
        self, config: RunConfig, sources: Sources, world: World, local: LocalBatch
    ) -> None:
        self.sources, self._world, self._local = sources, world, local
        workers = config.data.workers
        if workers is None:  # the processes of a machine share its cores
            workers = default_workers(world.local_size)
        self._config = replace(config, data=replace(config.data, workers=workers))
        # Too few to divide is found now, not after hours at the first evaluation.
        shared_ranges(len(sources.validation), EVALUATION_BATCH, world.rank, world.size)
        # While it evaluates, a process has training batches and others on their way: first those
        # of Algorithm 2, then held-out images.
        size, largest = config.network.image_size, max(EVALUATION_BATCH, config.batch.mini_batch)
        both = sum(parallel.batch_bytes(images, size) for images in (local.images, largest))
        parallel.require_shared_memory(workers, both, world.local_size)

    def training(
        self, start: int, stop: int, *, agree: bool
    ) -> Generator[TrainingBatch, None, None]:
        """Yield the mini-batches of steps `start` to `stop` - 1; `agree` as in `_together`."""
        batches = _in_order(
            self._config,
            self.sources.train,
            batch=self._config.batch.images,
            steps=range(start, stop),
            places=self._local.places(self._world.rank),
        )
        return self._together(batches, agree=agree)

    def population(
        self, device: torch.device, replaced: Callable[[list[tuple[str, str]]], object]
    ) -> Generator[Tensor | None, None, None]:
        """Yield the mini-batches of Algorithm 2: see `population_inputs`."""
        source = self.sources.train
        return population_inputs(self._config, source, device, self._world, replaced)

    def validation(self) -> Generator[ValidationBatch, None, None]:
        """Yield the held-out images, each once, single crop."""
        data = self._config.data
        batches = validation_batches(
            self.sources.validation,
            image_size=self._config.network.image_size,
            batch=EVALUATION_BATCH,
            workers=data.workers,
            on_error=data.on_error,
            backend=data.backend,
            share=(self._world.rank, self._world.size),
        )
        return self._together(batches, agree=True)

    def _together(
        self, batches: Generator[T, None, None], *, agree: bool
    ) -> Generator[T, None, None]:
        """The batches; with `agree`, where one process cannot have its next, none goes on.

        Agreed, a UserError strikes all between two updates, so that they can save together.
        """
        with closing(batches):
            if not agree:
                yield from batches
                return
            while (batch := self._world.agreed(lambda: next(batches, None))) is not None:
                yield batch


def population_inputs(
    config: RunConfig,
    source: ImageSource,
    device: torch.device,
    world: World = ALONE,
    replaced: Callable[[list[tuple[str, str]]], object] = lambda images: None,
) -> Generator[Tensor | None, None, None]:
    """Yield the mini-batches that BN Algorithm 2 takes its means over: inputs (N, 3, S, S).

    They are the first `train.population_batches` of the run's order, of `batch.mini_batch` images
    each, with the crops, mirrors and distortions of training. They are a function of configuration
    and seed: the same at every evaluation, so that two evaluations differ by the weights and not by
    the sample, and on every number of processes. Process r of P reads r, r + P, r + 2 P, ...

    `source` holds the run's training images. All processes have as many turns, each a meeting;
    None is yielded where only others read. `replaced` is told (name, reason) of replaced ones.
    """
    images, count = config.batch.mini_batch, config.train.population_batches
    batches = _in_order(
        config,
        source,
        # A step of this order is a turn of all processes.
        batch=images * world.size,
        steps=range(len(range(world.rank, count, world.size))),
        places=slice(world.rank * images, (world.rank + 1) * images),
    )
    with closing(batches):
        for _ in range(-(-count // world.size)):
            batch = world.agreed(lambda: next(batches, None))
            if batch is None:
                yield None
                continue
            replaced(batch.replaced)
            inputs = to_input(batch.images.to(device), batch.factors.to(device))
            yield inputs.contiguous(memory_format=torch.channels_last)


def _in_order(
    config: RunConfig, source: ImageSource, *, batch: int, steps: range, places: slice
) -> Generator[TrainingBatch, None, None]:
    """Yield mini-batches `steps` of a run's own order, of each the images at `places`."""
    seed, order, data = config.run.seed, config.order, config.data
    return training_batches(
        source,
        TrainingOrder(len(source), batch, seed, order.within_shard_shuffling, order.shard_size),
        start_step=steps.start,
        stop_step=steps.stop,
        image_size=config.network.image_size,
        augmentation=config.augmentation,
        seed=seed,
        workers=data.workers,
        on_error=data.on_error,
        backend=data.backend,
        places=places,
    )


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
            images, factors, labels = (
                tensor.pin_memory().to(device, non_blocking=True) for tensor in batch[:3]
            )
            there = TrainingBatch(images, factors, labels, batch.replaced)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        return there, copied

    # One batch ahead: bad input strikes a step early, and that step is made when the run goes on.
    coming: Iterator[Any] = chain(map(sent, batches), [None])
    for (batch, copied), _ in pairwise(coming):
        current = torch.cuda.current_stream(device)
        # The event, not the whole stream: the next batch's copy is queued there already.
        current.wait_event(copied)
        for tensor in batch[:3]:
            # Its memory belongs to the copying stream, which would give it to a later copy as soon
            # as nothing on the host holds the tensor; the step may still be reading it then.
            tensor.record_stream(current)
        yield batch
