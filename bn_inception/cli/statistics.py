"""With which statistics of BN `bn-inception evaluate` evaluates, and over how many mini-batches."""

from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch

from bn_inception.data import DataConfig, Sources
from bn_inception.errors import UserError
from bn_inception.evaluation.inference import Statistics
from bn_inception.network import Inception, running_statistics
from bn_inception.network.checkpoint import LoadedNetwork
from bn_inception.network.population import population_statistics
from bn_inception.training.batches import population_inputs
from bn_inception.training.settings import RunConfig


class Reported(Enum):
    """Statistics to report."""

    running = "running"
    population = "population"
    both = "both"


@dataclass(frozen=True)
class Way:
    """The statistics of one evaluation.

    Attributes:
        statistics: None for a network without BN.
        batches: mini-batches of Algorithm 2; None for other statistics.
    """

    statistics: Statistics | None
    batches: int | None = None

    def network(
        self,
        loaded: LoadedNetwork,
        trained: RunConfig | None,
        data: DataConfig,
        sources: Sources,
        device: torch.device,
    ) -> Inception:
        """The loaded network on `device` with these statistics; may be the loaded one itself."""
        network = loaded.network.to(device)
        if self.statistics is Statistics.running:
            network.load_state_dict(loaded.running_statistics, strict=False)
        if self.batches in (None, loaded.population_batches):
            return network
        assert trained is not None and self.batches is not None  # see `statistics_wanted`
        inputs = population_inputs(trained, sources.train, data, data.workers, self.batches, device)
        with closing(inputs):
            result = population_statistics(network, inputs)
        assert result is not None
        return result

    def in_words(self, trained: RunConfig | None) -> str:
        """The line that stands before what an evaluation came to."""
        if self.statistics is None:
            return "no Batch Normalization"
        if self.batches is None:
            return f"statistics: {self.statistics.value}"
        size = "" if trained is None else f" of {trained.batch.mini_batch}"
        return f"statistics: population (BN Algorithm 2, {self.batches} mini-batches{size})"


def statistics_wanted(
    asked: Reported | None,
    given: int | None,
    trained: RunConfig | None,
    loaded: LoadedNetwork,
    file: Path,
) -> list[Way]:
    """The statistics to evaluate with, one after the other.

    Where it is left open, those of the population; the network's own where the checkpoint does not
    carry others and there was no training to take them from, as for imported weights.

    Args:
        asked: None leaves it open.
        given: mini-batches of Algorithm 2 that were asked for.
        trained: the configuration of the run; None where nothing was trained.
        loaded: the checkpoint in `file`.
        file: names it in errors.

    Raises:
        UserError: statistics of a network without BN, or of a population that is not there.
    """
    if not running_statistics(loaded.network):
        if asked is None:
            return [Way(None)]
        raise UserError(
            f"statistics: {asked.value}, but {file} has no Batch Normalization whose statistics "
            "could be taken; leave statistics out"
        )
    configured = None if trained is None else trained.train.population_batches
    batches = given or loaded.population_batches or configured
    if asked is None:
        asked = Reported.running if batches is None else Reported.population
    if asked is Reported.running:
        return [Way(Statistics.running)]
    if batches is None or (trained is None and batches != loaded.population_batches):
        raise UserError(
            "statistics: population needs the order and the augmentation of training; give "
            "run=FOLDER of a training run, or statistics=running"
        )
    population = Way(Statistics.population, batches)
    # Population first: the running ones are then written over them.
    return [population, Way(Statistics.running)] if asked is Reported.both else [population]
