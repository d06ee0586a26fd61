"""What a run is judged with: BN Algorithm 2 over mini-batches of its own training order."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bn_inception.data import DataConfig, ImageSource, to_input
from bn_inception.network import Inception, running_statistics
from bn_inception.network.population import population_statistics
from bn_inception.training.batches import in_order
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.settings import RunConfig

if TYPE_CHECKING:
    from bn_inception.training.session import Session


@dataclass(frozen=True)
class PopulationBatches:
    """The mini-batches that Algorithm 2 takes its means over: the first `count` of a run's order.

    They have `batch.mini_batch` images each, with the crops, mirrors and distortions that training
    gave them. They are a function of configuration and seed alone: the same at every evaluation, so
    that two evaluations differ by the weights and not by the sample, after every resume, and on
    every number of processes. Process r of P reads the mini-batches r, r + P, r + 2 P, ...

    Attributes:
        config: of the run.
        source: its training images.
        data: how they are read now.
        workers: processes that read, of each process of the run; None is the default.
        count: mini-batches.
    """

    config: RunConfig
    source: ImageSource
    data: DataConfig
    workers: int | None
    count: int

    def inputs(
        self,
        device: torch.device,
        world: World = ALONE,
        replaced: Callable[[list[tuple[str, str]]], object] = lambda images: None,
    ) -> Generator[Tensor | None, None, None]:
        """Yield this process's mini-batches as inputs (N, 3, S, S); None where only others do.

        Args:
            device: of the network.
            world: the processes; all have as many turns, and each turn is a meeting.
            replaced: told of images whose place another one took: (name, reason).

        Raises:
            UserError: an image cannot be read and `data.on_error` is fail; on all processes.
        """
        images = self.config.batch.mini_batch
        batches = in_order(
            self.config,
            self.source,
            self.data,
            self.workers,
            # A step of this order is a turn of all processes.
            batch=images * world.size,
            steps=range(len(range(world.rank, self.count, world.size))),
            places=slice(world.rank * images, (world.rank + 1) * images),
        )
        with closing(batches):
            for _ in range(-(-self.count // world.size)):
                world.mark()
                batch = world.agreed(lambda: next(batches, None))
                world.mark()
                if batch is None:
                    yield None
                    continue
                replaced(batch.replaced)
                inputs = to_input(batch.images.to(device), batch.factors.to(device))
                yield inputs.contiguous(memory_format=torch.channels_last)


def judged_network(session: "Session", stopped: Callable[[], bool]) -> Inception | None:
    """A run's network as an evaluation judges it: its weights, and the population's statistics.

    Training is not touched: the statistics are a copy's, and nothing random is drawn. A network
    without BN is returned itself, and no image is read.

    Args:
        session: of the run.
        stopped: polled after every mini-batch.

    Returns:
        None if `stopped` said so.

    Raises:
        UserError: as `PopulationBatches.inputs`.
    """
    network, config = session.learner.network, session.config
    if not running_statistics(network):
        return network
    batches = PopulationBatches(
        config,
        session.batches.sources.train,
        config.data,
        session.batches.workers,
        config.train.population_batches,
    )
    device, world, replaced = session.learner.device, session.world, session.replaced.extend
    with closing(batches.inputs(device, world, replaced)) as inputs:
        return population_statistics(network, inputs, stopped=stopped, total=session.world.total)
