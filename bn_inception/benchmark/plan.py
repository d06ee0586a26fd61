"""Hours, GPU-hours and device memory of runs that have not been made.

What is not given is measured; every line says what it assumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bn_inception.benchmark.input import loaded
from bn_inception.benchmark.rows import Row, in_words
from bn_inception.benchmark.step import our_step
from bn_inception.benchmark.timing import CPU, Way, take_turn
from bn_inception.data import Sources, default_workers
from bn_inception.errors import UserError
from bn_inception.network import Inception, NetworkConfig, Normalization, saved_bytes
from bn_inception.paper import results
from bn_inception.training.distributed import ALONE
from bn_inception.training.local_batch import LocalBatch, local_batch
from bn_inception.training.machine import choose_device, resolve
from bn_inception.training.schedule import Schedule
from bn_inception.training.settings import RunConfig

GIB = 2**30
FLOAT_BYTES = 4
UPDATE_COST = 3  # forward passes that an update costs: backward are two products, for one forward


@dataclass
class PlanSettings:
    """The keys `plan.*` of `configs/plan.yaml`: what is known; None is measured or found here."""

    recipes: list[str] | None = None
    processes: int = 1
    workers: int | None = None
    step_images_per_second: float | None = None
    worker_images_per_second: float | None = None
    steps: int = 5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "recipes" and value is not None and not value > 0:
                raise UserError(f"plan.{name}: {value} is not positive; leave it out to measure it")


@dataclass(frozen=True)
class Forecast:
    """What a run has to do and how fast; what follows.

    `evaluation_images` are the forward passes of an evaluation, with the training images of the
    population statistics. A process is one GPU; `images` of an update are one process's, `workers`
    read for all of them. A `worker_images_per_second` that is not known is left out.
    """

    updates: int
    evaluations: int
    evaluation_images: int
    parameters: int
    processes: int
    images: int
    workers: int
    compute_seconds: float
    worker_images_per_second: float | None = None

    @property
    def loading_seconds(self) -> float:
        """Seconds in which the workers make an update's images; 0 where it is not known."""
        if self.worker_images_per_second is None:
            return 0.0
        return self.processes * self.images / (self.workers * self.worker_images_per_second)

    @property
    def update_seconds(self) -> float:
        """Seconds of an update: images are loaded while the last ones are learned from."""
        return max(self.compute_seconds, self.loading_seconds)

    @property
    def hours(self) -> float:
        """From the first update to the last evaluation.

        An evaluation is forward passes, divided among the processes, loaded by the same workers.
        """
        forward = max(self.compute_seconds / UPDATE_COST, self.loading_seconds)
        image = forward / (self.processes * self.images)
        evaluating = self.evaluations * self.evaluation_images * image
        return (self.updates * self.update_seconds + evaluating) / 3600


Run = tuple[RunConfig, Forecast]


def forecast_runs(
    configs: Sequence[RunConfig], settings: PlanSettings, sources: Sources | None
) -> list[Run]:
    """Measure what `settings` leave open, each network once, and forecast every run.

    The configurations differ in their recipes. Without `sources` it plans for ImageNet, and leaves
    loading out unless its rate is given.
    """
    device = choose_device(configs[0].machine.device)
    classes = len(sources.train.classes) if sources else results.IMAGENET_CLASSES
    images = len(sources.train) if sources else results.IMAGENET_TRAIN_IMAGES
    held_out = len(sources.validation) if sources else results.IMAGENET_VALIDATION_IMAGES
    worker_rate = settings.worker_images_per_second
    if worker_rate is None and sources is not None:
        worker_rate = _worker_images_per_second(configs[0], sources, settings.steps)
    seconds: dict[str, float] = {}
    runs = []
    for config in configs:
        normalized = config.network.normalization is not Normalization.none
        part = local_batch(config.batch, settings.processes, normalized=normalized)
        # What sets an ensemble's member apart costs little: one of them is measured.
        network = replace(config.network, dropout=0.0, per_activation=[], initial_weight_gain=1.0)
        key = f"{network} {part}"
        if settings.step_images_per_second is not None:
            seconds[key] = part.images / settings.step_images_per_second
        elif key not in seconds:
            seconds[key] = _update_seconds(config, classes, part.images, device, settings.steps)
        durations = Schedule.of(config, images)
        population = config.train.population_batches * config.batch.images if normalized else 0
        forecast = Forecast(
            updates=durations.steps,
            evaluations=-(-durations.steps // durations.evaluate_every),
            evaluation_images=held_out + population,
            parameters=sum(p.numel() for p in _shape(config.network, classes).parameters()),
            processes=settings.processes,
            images=part.images,
            workers=settings.workers or max(1, default_workers()),
            compute_seconds=seconds[key],
            worker_images_per_second=worker_rate,
        )
        runs.append((config, forecast))
    return runs


def _worker_images_per_second(config: RunConfig, sources: Sources, batches: int) -> float:
    """Images that one process decodes, cuts and packs, on the configured data."""
    batch, photometric = config.batch.images, config.augmentation.photometric
    how: dict[str, Any] = {"image_size": config.network.image_size, "workers": 0, "batch": batch}
    how |= {"backend": config.data.backend, "on_error": config.data.on_error}
    way = Way("", lambda: loaded(sources.train, photometric, seed=config.run.seed, **how))
    take_turn(way, CPU, untimed=1, units=batches)
    return batch / way.seconds[0]


def _update_seconds(
    config: RunConfig, classes: int, images: int, device: torch.device, updates: int
) -> float:
    """Forward, backward and update of one process alone, on random images."""
    machine = resolve(config.machine, device, LocalBatch(images, images, 1, 1), ALONE)
    size = config.network.image_size
    inputs = torch.rand(images, 3, size, size, device=device).mul_(2).sub_(1)
    labels = torch.arange(images, device=device) % classes
    way = our_step("", config, machine, [inputs], [labels], classes)
    take_turn(way, device, untimed=way.warm_up, units=updates)
    return way.seconds[0]


def _shape(config: NetworkConfig, classes: int) -> Inception:
    """The network without storage: for counting."""
    with torch.device("meta"):
        return Inception(config, classes)


def rows(runs: Sequence[Run]) -> list[Row]:
    """A row a run, the ensemble's members together, and the sum of all."""
    named = [(config.recipe.name, run) for config, run in runs]
    members = [run for name, run in named if name.startswith("ensemble_")]
    made = [_row(name, [run]) for name, run in named if not name.startswith("ensemble_")]
    if members:
        made.append(_row(f"ensemble, {len(members)} runs", members))
    return [*made, _row("all", [run for _, run in named])] if len(made) > 1 else made


def _row(name: str, runs: list[Forecast]) -> Row:
    def milliseconds(seconds: str) -> float | None:
        """Of an update; None where runs differ."""
        found = {getattr(run, seconds) for run in runs}
        return found.pop() * 1e3 if len(found) == 1 else None

    bounds = ("loading" if run.loading_seconds > run.compute_seconds else "compute" for run in runs)
    return {
        "run": name,
        "updates": sum(run.updates for run in runs),
        "update_ms": milliseconds("update_seconds"),
        "compute_ms": milliseconds("compute_seconds"),
        "loading_ms": milliseconds("loading_seconds") or None,
        "waits_for": "/".join(dict.fromkeys(bounds)),
        "hours": sum(run.hours for run in runs),
        "gpu_hours": sum(run.hours * run.processes for run in runs),
    }


def lines(runs: Sequence[Run], settings: PlanSettings) -> list[str]:
    """What the rows assume, then device memory, one line each."""
    config, first = runs[0]
    parameters = max(run.parameters for _, run in runs)
    saved = max(saved_bytes(_shape(each.network, 1000), run.images) for each, run in runs)
    device = (3 * FLOAT_BYTES * parameters + saved) / GIB  # weights, gradients, momenta
    rate = first.worker_images_per_second
    if rate is None:
        loading = (
            "Loading: not known and left out; give data= and data.root= to measure it, or "
            "plan.worker_images_per_second="
        )
    else:
        needed = first.processes * first.images / first.compute_seconds
        origin = _origin(settings.worker_images_per_second)
        loading = (
            f"Loading: {rate:,.0f} images/s a worker, {origin}, by {in_words(first.workers)} of as "
            f"many free cores; training asks for {needed:,.0f} images/s, which is "
            f"{in_words(int(-(-needed // rate)))}."
        )
    return [
        f"Update: {_origin(settings.step_images_per_second)}, of {first.images} images a process "
        f"at {config.network.image_size} pixels; the members of the ensemble count as BN-x30. An "
        "evaluation is forward passes at a third of an update's cost: the held-out images, and "
        f"with BN {config.train.population_batches} training mini-batches for the population "
        "statistics. What several processes exchange is left out.",
        loading,
        f"Device memory: {device:,.1f} GiB a process: {parameters:,} parameters with gradients and "
        "momenta, and activations kept for the backward pass, counted in float32 (bf16 keeps about "
        "half of them); not the libraries' workspace, on CUDA about another GiB.",
    ]


def _origin(given: float | None) -> str:
    return "measured here" if given is None else "given"
