"""The first updates of a run, over and over from other starts and at other rates.

The mini-batches are those of `bn-inception train` with the same keys and seed; they are read once
and stay in memory (300 of 32 images of 32x32: 30 MB). Nothing is evaluated, nothing saved.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from bn_inception.config import compose, run_config
from bn_inception.data import TrainingBatch, TrainingOrder, open_sources, to_input, training_batches
from bn_inception.network import Inception, initialize
from bn_inception.training.learner import build_optimizer
from bn_inception.training.schedule import Schedule
from bn_inception.training.step import train_step


@dataclass(frozen=True)
class Update:
    """Main loss before an update, NaN or infinite where it was, and the batch's accuracy."""

    loss: float
    top1: float


class ShortTraining:
    """The first `steps` updates of the run that `given` (key=value as for `train`) describes."""

    def __init__(self, given: Sequence[str], steps: int) -> None:
        self.given = list(given)
        config = run_config(compose("train", self.given))
        torch.set_num_threads(config.machine.threads or 1)
        sources = open_sources(config.data)
        self.classes = len(sources.train.classes)
        self._images = len(sources.train)
        order = TrainingOrder(
            self._images,
            config.batch.images,
            config.run.seed,
            config.order.within_shard_shuffling,
            config.order.shard_size,
        )
        self._batches: list[TrainingBatch] = list(
            training_batches(
                sources.train,
                order,
                start_step=0,
                stop_step=steps,
                image_size=config.network.image_size,
                augmentation=config.augmentation,
                seed=config.run.seed,
                workers=0,
                on_error=config.data.on_error,
                backend=config.data.backend,
            )
        )

    def updates(self, *changes: str) -> Iterator[Update]:
        """Train from the start; `changes` are keys that alter the network or the optimizer.

        Ends after the first update whose loss, auxiliary head's included, is not finite.
        """
        config = run_config(compose("train", [*self.given, *changes]))
        network = Inception(config.network, self.classes)
        initialize(network, torch.Generator().manual_seed(config.run.seed))
        network = network.to(memory_format=torch.channels_last).train()
        optimizer = build_optimizer(network, config.optimizer)
        schedule = Schedule.of(config, self._images)
        for step, batch in enumerate(self._batches):
            images = to_input(batch.images, batch.factors)
            images = images.contiguous(memory_format=torch.channels_last)
            torch.manual_seed(step)  # dropout: the same masks at every rate
            result = train_step(
                network, optimizer, images, batch.labels, schedule.learning_rate(step)
            )
            loss = float(result.loss)
            yield Update(loss if result.finite else math.nan, int(result.correct) / len(images))
            if not result.finite:
                return
