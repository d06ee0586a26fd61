"""The images that one process of a run reads."""

from collections.abc import Generator
from contextlib import closing
from typing import TypeVar

from bn_inception.data import (
    DataConfig,
    ImageSource,
    Sources,
    TrainingBatch,
    TrainingOrder,
    ValidationBatch,
    default_workers,
    shared_memory,
    training_batches,
    validation_batches,
)
from bn_inception.data.loader import shared_ranges
from bn_inception.training.distributed import World
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.settings import RunConfig

T = TypeVar("T")

EVALUATION_BATCH = 64
"""Images in an evaluation batch: bounds memory; the result does not depend on it."""


def in_order(
    config: RunConfig,
    source: ImageSource,
    data: DataConfig,
    workers: int | None,
    *,
    batch: int,
    steps: range,
    places: slice,
) -> Generator[TrainingBatch, None, None]:
    """Yield mini-batches `steps` of a run's own order, of each the images at `places`.

    Seed, order, augmentation and image size are the run's; how images are read, `data` says.
    """
    order = TrainingOrder(
        len(source),
        batch,
        config.run.seed,
        config.order.within_shard_shuffling,
        config.order.shard_size,
    )
    return training_batches(
        source,
        order,
        start_step=steps.start,
        stop_step=steps.stop,
        image_size=config.network.image_size,
        augmentation=config.augmentation,
        seed=config.run.seed,
        workers=workers,
        on_error=data.on_error,
        backend=data.backend,
        places=places,
    )


class Batches:
    """One process's part of a run's mini-batches and of the held-out images.

    Args:
        config: of the run.
        sources: training and held-out images.
        world: the processes that share them; all have the same number of batches.
        local: the process's part of an update.

    Raises:
        UserError: fewer held-out images than processes, or too little shared memory.
    """

    def __init__(
        self, config: RunConfig, sources: Sources, world: World, local: LocalBatch
    ) -> None:
        self.sources = sources
        self._config = config
        self._world = world
        self._local = local
        # Too few to divide is found now, not after hours at the first evaluation.
        shared_ranges(len(sources.validation), EVALUATION_BATCH, world.rank, world.size)
        # While it evaluates, a process has training batches and others on their way: first those
        # of Algorithm 2, then held-out images.
        size, largest = config.network.image_size, max(EVALUATION_BATCH, config.batch.mini_batch)
        both = sum(shared_memory.batch_bytes(images, size) for images in (local.images, largest))
        shared_memory.require(self.workers, both, world.local_size)

    @property
    def workers(self) -> int:
        """Processes that read: as configured; by default those of a machine share its cores."""
        configured = self._config.data.workers
        return default_workers(self._world.local_size) if configured is None else configured

    def training(
        self, start: int, stop: int, *, agree: bool
    ) -> Generator[TrainingBatch, None, None]:
        """Yield the mini-batches of steps `start` to `stop` - 1; `agree` as in `_together`."""
        batches = in_order(
            self._config,
            self.sources.train,
            self._config.data,
            self.workers,
            batch=self._config.batch.images,
            steps=range(start, stop),
            places=self._local.places(self._world.rank),
        )
        return self._together(batches, agree=agree)

    def validation(self) -> Generator[ValidationBatch, None, None]:
        """Yield the held-out images, each once, single crop."""
        batches = validation_batches(
            self.sources.validation,
            image_size=self._config.network.image_size,
            batch=EVALUATION_BATCH,
            workers=self.workers,
            on_error=self._config.data.on_error,
            backend=self._config.data.backend,
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
            while True:
                self._world.mark()
                if agree:
                    batch = self._world.agreed(lambda: next(batches, None))
                else:
                    batch = next(batches, None)
                self._world.mark()
                if batch is None:
                    return
                yield batch
