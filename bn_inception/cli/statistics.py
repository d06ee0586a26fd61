"""With which statistics of BN `bn-inception evaluate` evaluates, and over how many mini-batches."""

from contextlib import closing
from enum import Enum
from pathlib import Path

import torch

from bn_inception.errors import UserError
from bn_inception.evaluation.inference import Statistics
from bn_inception.network import Inception, running_statistics
from bn_inception.network.checkpoint import LoadedNetwork
from bn_inception.network.population import population_statistics
from bn_inception.training.population import PopulationBatches
from bn_inception.training.settings import RunConfig


class Reported(Enum):
    """Statistics to report."""

    running = "running"
    population = "population"
    both = "both"


def statistics_wanted(
    asked: Reported | None,
    given: int | None,
    trained: RunConfig | None,
    loaded: LoadedNetwork,
    file: Path,
) -> list[Statistics | None]:
    """The statistics to evaluate with, one after the other; None is a network without BN.

    Where it is left open, those of the population; running ones where the checkpoint does not
    carry others and there are no training images to take them from, as for imported weights.

    Args:
        asked: None leaves it open.
        given: mini-batches of Algorithm 2 that were asked for.
        trained: the configuration of the run; None where there is no run.
        loaded: the checkpoint in `file`.
        file: names it in errors.

    Raises:
        UserError: statistics of a network without BN, or of a population that is not there.
    """
    if not running_statistics(loaded.network):
        if asked is None:
            return [None]
        raise UserError(
            f"statistics: {asked.value}, but {file} has no Batch Normalization whose statistics "
            "could be taken; leave statistics out"
        )
    carried = loaded.population_batches is not None and given in (None, loaded.population_batches)
    if asked is None:
        known = carried or given is not None or trained is not None
        asked = Reported.population if known else Reported.running
    if asked is not Reported.running and not carried and trained is None:
        raise UserError(
            "statistics: population needs the order and the augmentation of training; give "
            "run=FOLDER of a training run, or statistics=running"
        )
    if asked is Reported.both:
        # Population first: the running ones are then written over them.
        return [Statistics.population, Statistics.running]
    return [Statistics(asked.value)]


def mini_batches(given: int | None, trained: RunConfig | None, loaded: LoadedNetwork) -> int:
    """Of Algorithm 2: as given, else as the checkpoint carries, else as the run's evaluations."""
    for count in (given, loaded.population_batches):
        if count is not None:
            return count
    assert trained is not None
    return trained.train.population_batches


def with_population(
    network: Inception, images: PopulationBatches, device: torch.device
) -> Inception:
    """A copy of a network on `device`, with the population's statistics."""
    with closing(images.inputs(device)) as inputs:
        result = population_statistics(network, inputs)
    assert result is not None
    return result


def in_words(statistics: Statistics | None, batches: int | None, trained: RunConfig | None) -> str:
    """The line that stands before what an evaluation came to."""
    if statistics is None:
        return "no Batch Normalization"
    if batches is None:
        return f"statistics: {statistics.value}"
    size = "" if trained is None else f" of {trained.batch.mini_batch}"
    return f"statistics: population (BN Algorithm 2, {batches} mini-batches{size})"
