"""Hours, GPU-hours and device memory of runs that have not been made.

An update's time is measured where no rate is given; every line says what it assumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bn_inception.benchmark.rows import Row
from bn_inception.benchmark.step import our_step
from bn_inception.benchmark.timing import take_turn
from bn_inception.data import Sources
from bn_inception.network import Inception, NetworkConfig, Normalization, saved_bytes
from bn_inception.paper import results
from bn_inception.training.local_batch import LocalBatch, local_batch
from bn_inception.training.machine import choose_device, resolve
from bn_inception.training.optimizer import require_positive
from bn_inception.training.schedule import Schedule
from bn_inception.training.settings import RunConfig

FLOAT_BYTES = 4
UPDATE_COST = 3  # forward passes that an update costs: backward are two products, for one forward


@dataclass
class PlanSettings:
    """The keys `plan.*` of `configs/plan.yaml`, which says what they mean."""

    processes: int = 1
    step_images_per_second: float | None = None
    steps: int = 5

    def __post_init__(self) -> None:
        for name in ("processes", "step_images_per_second", "steps"):
            value = getattr(self, name)
            require_positive(f"plan.{name}", 1 if value is None else value)


@dataclass(frozen=True)
class Forecast:
    """What a run has to do and how fast.

    Attributes:
        updates: steps of the run.
        forward_images: forward passes of all evaluations: held-out images, and the training images
            of the population statistics.
        processes: one a GPU (or one in all, on a CPU).
        images: of an update that a process holds.
        update_seconds: forward, backward and update of one process.
        device_bytes: weights, gradients, momenta and kept activations of one process, in float32.
    """

    updates: int
    forward_images: int
    processes: int
    images: int
    update_seconds: float
    device_bytes: int

    @property
    def hours(self) -> float:
        """From the first update to the last evaluation, which the processes share."""
        image = self.update_seconds / UPDATE_COST / (self.processes * self.images)
        return (self.updates * self.update_seconds + self.forward_images * image) / 3600


Run = tuple[RunConfig, Forecast]


def forecast_runs(
    configs: Sequence[RunConfig], settings: PlanSettings, sources: Sources | None
) -> list[Run]:
    """Forecast every run; an update of each network is measured once, unless its rate is given.

    The configurations differ in their recipes. Without `sources` it plans for ImageNet.
    """
    device = choose_device(configs[0].machine.device)
    classes = len(sources.train.classes) if sources else results.IMAGENET_CLASSES
    images = len(sources.train) if sources else results.IMAGENET_TRAIN_IMAGES
    held_out = len(sources.validation) if sources else results.IMAGENET_VALIDATION_IMAGES
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
        evaluations = -(-durations.steps // durations.evaluate_every)
        shape = _shape(config.network, classes)
        parameters = sum(parameter.numel() for parameter in shape.parameters())
        forecast = Forecast(
            updates=durations.steps,
            forward_images=evaluations * (held_out + population),
            processes=settings.processes,
            images=part.images,
            update_seconds=seconds[key],
            device_bytes=3 * FLOAT_BYTES * parameters + saved_bytes(shape, part.images),
        )
        runs.append((config, forecast))
    return runs


def _update_seconds(
    config: RunConfig, classes: int, images: int, device: torch.device, updates: int
) -> float:
    """Forward, backward and update of one process alone, on random images."""
    machine = resolve(config.machine, device, LocalBatch(images, images, 1, 1))
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
    """A row a run, and the sum of all."""
    made = [_row(config.recipe.name, [run]) for config, run in runs]
    return [*made, _row("all", [run for _, run in runs])] if len(runs) > 1 else made


def _row(name: str, runs: list[Forecast]) -> Row:
    updates = sum(run.updates for run in runs)
    return {
        "run": name,
        "updates": updates,
        "update_ms": sum(run.updates * run.update_seconds for run in runs) / updates * 1e3,
        "hours": sum(run.hours for run in runs),
        "gpu_hours": sum(run.hours * run.processes for run in runs),
        "device_gib": max(run.device_bytes for run in runs) / 2**30,
    }


def lines(runs: Sequence[Run], settings: PlanSettings) -> list[str]:
    """What the rows assume, a line a column."""
    config, first = runs[0]
    origin = "measured here" if settings.step_images_per_second is None else "given"
    rate = first.processes * first.images / first.update_seconds
    return [
        f"Update: {origin}, of {first.images} images a process at {config.network.image_size} "
        "pixels; the members of the ensemble count as BN-x30. What several processes exchange is "
        "left out.",
        "Hours: updates, and evaluations as forward passes at a third of an update's cost: of the "
        f"held-out images, and with BN of {config.train.population_batches} training mini-batches "
        "for the population statistics.",
        f"Loading: training asks for {rate:,.0f} images/s; bn-inception benchmark input measures "
        "how many workers that takes.",
        "Device memory: of a process, parameters with gradients and momenta, and activations kept "
        "for the backward pass, in float32 (bf16 keeps about half of them); not the libraries' "
        "workspace, on CUDA about another GiB.",
    ]
