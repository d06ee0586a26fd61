"""Hours, GPU-hours, memory and disk of runs that have not been made.

What is not given is measured; `benchmark.forecast` is the model; every line says what it assumes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bn_inception.benchmark.forecast import FLOAT_BYTES, Forecast, ring_bytes
from bn_inception.benchmark.input import loaded
from bn_inception.benchmark.rows import in_words
from bn_inception.benchmark.step import our_step
from bn_inception.benchmark.timing import CPU, Way, median_seconds, repeated, take_turn
from bn_inception.data import DataConfig, Sources, default_workers, shared_memory
from bn_inception.errors import UserError
from bn_inception.network import (
    Inception,
    NetworkConfig,
    Normalization,
    running_statistics,
    saved_bytes,
)
from bn_inception.paper import results
from bn_inception.training.batches import EVALUATION_BATCH
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.local_batch import LocalBatch, local_batch
from bn_inception.training.machine import choose_device, resolve
from bn_inception.training.schedule import Schedule
from bn_inception.training.settings import RunConfig

GIB, MIB = 2**30, 2**20
WORKER_BYTES = 300 * MIB
"""Private memory of a process that reads images: an interpreter's heap with torch, Pillow and the
batch in work. An assumption; what it shares with the others is not counted."""
EXCHANGES = 20
IMAGENET_BYTES = 144.3e9
"""ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar as downloaded."""


@dataclass
class PlanSettings:
    """The keys `plan.*` of `configs/plan.yaml`: what is known; None is measured or found here."""

    recipes: list[str] | None = None
    processes: int | None = None
    workers: int | None = None
    step_images_per_second: float | None = None
    worker_images_per_second: float | None = None
    exchange_gigabytes_per_second: float | None = None
    exchange_microseconds: float | None = None
    steps: int = 5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "recipes" and value is not None and not value > 0:
                raise UserError(f"plan.{name}: {value} is not positive; leave it out to measure it")


@dataclass(frozen=True)
class ForecastRow:
    """One run, or several together; `update_ms` is what an update waits for, None is not known."""

    run: str
    updates: int
    update_ms: float
    compute_ms: float
    exchange_ms: float | None
    loading_ms: float | None
    waits_for: str
    hours: float
    gpu_hours: float


Run = tuple[RunConfig, Forecast]


def forecast_runs(
    configs: Iterable[RunConfig], settings: PlanSettings, sources: Sources | None, world: World
) -> list[Run]:
    """Measure what `settings` leave open, each network once, and forecast every run.

    Args:
        configs: of the runs, alike but for their recipes.
        settings: what is known.
        sources: the images; None plans for ImageNet, and leaves loading out unless its rate is
            given.
        world: the processes, connected.

    Raises:
        UserError: images or groups that cannot be divided among the processes.
    """
    configs = list(configs)
    device = choose_device(configs[0].machine.device, world)
    classes = len(sources.train.classes) if sources else results.IMAGENET_CLASSES
    processes = settings.processes or world.size
    worker_rate = settings.worker_images_per_second
    if worker_rate is None and sources is not None:
        worker_rate = _worker_images_per_second(configs[0], sources, settings.steps)
    seconds: dict[str, float] = {}
    exchanges: dict[int, tuple[float | None, float]] = {}  # by parameters
    runs = []
    for config in configs:
        normalized = config.network.normalization is not Normalization.none
        part = local_batch(config.batch, processes, normalized=normalized)
        # What sets an ensemble's member apart costs little: one of them is measured.
        network = replace(config.network, dropout=0.0, per_activation=[], initial_weight_gain=1.0)
        key = f"{network} {part}"
        if settings.step_images_per_second is not None:
            seconds[key] = part.images / settings.step_images_per_second
        elif key not in seconds:
            seconds[key] = _update_seconds(config, classes, part.images, device, settings.steps)
        work = _work(config, sources, classes)
        size = work["parameters"]
        if size not in exchanges:
            exchanges[size] = _exchange_speed(world, device, size)
        bandwidth, latency = exchanges[size]
        if settings.exchange_gigabytes_per_second is not None:
            bandwidth = settings.exchange_gigabytes_per_second * 1e9
        if settings.exchange_microseconds is not None:
            latency = settings.exchange_microseconds / 1e6
        run = Forecast(
            **work,
            processes=processes,
            images=part.images,
            sharers=part.sharers,
            workers=settings.workers or max(1, default_workers()),
            compute_seconds=seconds[key],
            worker_images_per_second=worker_rate,
            exchange_bytes_per_second=bandwidth,
            exchange_latency=latency,
        )
        runs.append((config, run))
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
    return median_seconds(
        our_step("", config, machine, [inputs], [labels], classes), device, updates
    )


def _exchange_speed(
    world: World, device: torch.device, parameters: int
) -> tuple[float | None, float]:
    """Bytes a second of a process's link, and seconds of the smallest exchange; alone (None, 0)."""
    if world.size == 1:
        return None, 0.0
    one, gradients = (torch.zeros(size, device=device) for size in (1, parameters))
    # The first exchange, which makes the connections, is not timed.
    latency, seconds = (
        median_seconds(repeated("", int, world.total, [sent]), device, EXCHANGES)
        for sent in (one, gradients)
    )
    return ring_bytes(parameters, world.size) / max(seconds - latency, 1e-9), latency


def rows(runs: Sequence[Run]) -> list[ForecastRow]:
    """A row a run, the ensemble's members together, and the sum of all."""
    named = [(config.recipe.name, run) for config, run in runs]
    members = [run for name, run in named if name.startswith("ensemble_")]
    made = [_row(name, [run]) for name, run in named if not name.startswith("ensemble_")]
    if members:
        made.append(_row(f"ensemble, {len(members)} runs", members))
    return [*made, _row("all", [run for _, run in named])] if len(made) > 1 else made


def _row(name: str, runs: list[Forecast]) -> ForecastRow:
    updates = sum(run.updates for run in runs)

    def mean(seconds: str) -> float | None:
        """Of an update, in milliseconds; None where it is not known of all."""
        pairs = [(getattr(run, seconds), run.updates) for run in runs]
        if any(value is None for value, _ in pairs):
            return None
        return float(sum(value * number for value, number in pairs) / updates * 1e3)

    return ForecastRow(
        run=name,
        updates=updates,
        update_ms=sum(run.training_seconds for run in runs) / updates * 1e3,
        compute_ms=mean("compute_seconds") or 0.0,
        exchange_ms=mean("exchange_seconds"),
        loading_ms=mean("loading_seconds"),
        waits_for="/".join(dict.fromkeys(run.bound for run in runs)),
        hours=sum(run.hours for run in runs),
        gpu_hours=sum(run.hours * run.processes for run in runs),
    )


def lines(
    runs: Sequence[Run], settings: PlanSettings, sources: Sources | None, data: DataConfig
) -> list[str]:
    """What the rows assume, then memory, shared memory and disk, one line each."""
    config, first = runs[0]
    size = config.network.image_size
    parameters = max(run.parameters for _, run in runs)
    saved = max(saved_bytes(_shape(each.network, 1000), run.images) for each, run in runs)
    batches = (shared_memory.batch_bytes(each, size) for each in (first.images, EVALUATION_BATCH))
    shared = shared_memory.needed(first.workers, sum(batches))
    folders = sum(run.folder_bytes(each.train.log_every) for each, run in runs)
    if sources is None:
        images = (
            f"ImageNet's archives as downloaded {_size(IMAGENET_BYTES)}, and as much for shards"
        )
    else:
        total = sum(int(source.sizes.sum()) for source in (sources.train, sources.validation))
        images = f"the images of data={data.kind.value} {_size(total)}"
    return [
        f"Update: {_origin(settings.step_images_per_second)}, of {first.images} images a process "
        f"at {size} pixels; the members of the ensemble count as BN-x30. An evaluation is forward "
        "passes at a third of an update's cost: the held-out images, and with BN "
        f"{config.train.population_batches} training mini-batches for the population statistics.",
        _loading_line(first, settings),
        _exchange_line(first, settings),
        # Weights, gradients, momenta.
        f"Device memory: {_size(3 * FLOAT_BYTES * parameters + saved)} a process: {parameters:,} "
        "parameters with gradients and momenta, and activations kept for the backward pass, "
        "counted in float32 (bf16 keeps about half of them); not the libraries' workspace, on CUDA "
        "about another GiB.",
        f"Memory: {_size(first.workers * WORKER_BYTES)} for {in_words(first.workers)} "
        f"(assumed: {_size(WORKER_BYTES)} each), and what the system has left to keep the data in.",
        f"Shared memory: {_size(shared)} in {shared_memory.FOLDER} for batches on their way from "
        "workers, a training and an evaluation batch at a time.",
        f"Disk: {images}; {_size(folders)} for all run folders (three checkpoints each, and the "
        "record).",
    ]


def _work(config: RunConfig, sources: Sources | None, classes: int) -> dict[str, int]:
    images = len(sources.train) if sources else results.IMAGENET_TRAIN_IMAGES
    held_out = len(sources.validation) if sources else results.IMAGENET_VALIDATION_IMAGES
    durations = Schedule.of(config, images)
    network = _shape(config.network, classes)
    normalizations = len(running_statistics(network)) // 2  # a mean and a variance each
    population = config.train.population_batches * config.batch.images if normalizations else 0
    return {
        "updates": durations.steps,
        "evaluations": -(-durations.steps // durations.evaluate_every),
        "evaluation_images": held_out + population,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "normalizations": normalizations,
    }


def _shape(config: NetworkConfig, classes: int) -> Inception:
    """The network without storage: for counting."""
    with torch.device("meta"):
        return Inception(config, classes)


def _loading_line(run: Forecast, settings: PlanSettings) -> str:
    rate = run.worker_images_per_second
    if rate is None:
        return (
            "Loading: not known and left out; give data= and data.root= to measure it, or "
            "plan.worker_images_per_second="
        )
    needed = run.processes * run.images / run.working_seconds
    return (
        f"Loading: {rate:,.0f} images/s a worker ({_origin(settings.worker_images_per_second)}), "
        f"{in_words(run.workers)} of as many free cores; training asks for {needed:,.0f} images/s, "
        f"which is {in_words(int(-(-needed // rate)))}."
    )


def _exchange_line(run: Forecast, settings: PlanSettings) -> str:
    if run.processes == 1:
        return "Exchange: one process has none; give plan.processes=N for several."
    sent = f"{run.ring_bytes / 1e6:.0f} MB sent by each of {run.processes} processes"
    if run.exchange_bytes_per_second is None:
        return (
            f"Exchange: a ring, {sent}, left out; run this under torchrun to measure it, or give "
            "plan.exchange_gigabytes_per_second= and plan.exchange_microseconds="
        )
    shared = f", BN statistics shared by {run.sharers}: two exchanges a layer" * (run.sharers > 1)
    return (
        f"Exchange: a ring, {sent}, {run.exchange_bytes_per_second / 1e9:.3g} GB/s and "
        f"{run.exchange_latency * 1e6:.0f} microseconds "
        f"({_origin(settings.exchange_gigabytes_per_second)}){shared}; none of it hidden behind "
        "the backward pass."
    )


def _origin(given: float | None) -> str:
    return "measured here" if given is None else "given"


def _size(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / MIB:,.0f} MiB"
