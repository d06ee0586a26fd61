"""Hours, GPU-hours, memory and disk of runs that have not been made.

What is not given is measured; `benchmark.forecast` is the model; every line says what it assumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from bn_inception.benchmark import rates
from bn_inception.benchmark.forecast import (
    FLOAT_BYTES,
    WORKER_BYTES,
    Forecast,
    Layout,
    Speed,
    Work,
    device_bytes,
    forecast,
    ring_bytes,
    run_folder_bytes,
)
from bn_inception.benchmark.rows import in_words
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
from bn_inception.training.batch import split
from bn_inception.training.distributed import World
from bn_inception.training.session import EVALUATION_BATCH, choose_device
from bn_inception.training.session import plan as durations_of
from bn_inception.training.settings import RunConfig

GIGA, MICRO, MILLI, GIB, MIB = 1e9, 1e-6, 1e-3, 2**30, 2**20
IMAGENET_BYTES = 144.3e9
"""ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar as downloaded."""


@dataclass
class PlanSettings:
    """What is known of the machine; None is what is measured or found on this one.

    Attributes:
        recipes: to plan; None is Figure 3, both controls and the ensemble.
        processes: GPUs; None is those of torchrun, or one.
        workers: processes that read images, over all processes.
        step_images_per_second: of one process, forward, backward and update.
        worker_images_per_second: that one worker decodes and cuts.
        exchange_gigabytes_per_second: of a process's link, in one direction.
        exchange_microseconds: of the smallest exchange between all processes.
        steps: updates and mini-batches that are measured.
    """

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
class PlannedRun:
    """One recipe: its configuration, what it has to do, how fast and how it lies, what it takes."""

    config: RunConfig
    work: Work
    speed: Speed
    layout: Layout
    forecast: Forecast


@dataclass(frozen=True)
class PlanRow:
    """One run, or several together.

    Attributes:
        run: recipe.
        updates: of the run.
        update_ms: an update: the longer of loading and of computing plus exchanging.
        compute_ms: forward, backward, update.
        exchange_ms: between processes; None where it is not known.
        loading_ms: in which the workers make an update's images; None where it is not known.
        waits_for: what the rest waits for: loading, compute or exchange.
        hours: training and evaluations.
        gpu_hours: the same, times the processes.
    """

    run: str
    updates: int
    update_ms: float
    compute_ms: float
    exchange_ms: float | None
    loading_ms: float | None
    waits_for: str
    hours: float
    gpu_hours: float


def plan_runs(
    configs: Mapping[str, RunConfig], settings: PlanSettings, sources: Sources | None, world: World
) -> list[PlannedRun]:
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
    first = next(iter(configs.values()))
    device = choose_device(first.machine.device, world)
    classes = len(sources.train.classes) if sources else results.IMAGENET_CLASSES
    processes = settings.processes or world.size
    workers = settings.workers or max(1, default_workers())
    worker_rate = settings.worker_images_per_second
    if worker_rate is None and sources is not None:
        worker_rate = rates.worker_images_per_second(first, sources, settings.steps)
    measured: dict[str, float] = {}
    exchanges: dict[int, tuple[float | None, float]] = {}  # by parameters
    planned = []
    for config in configs.values():
        normalized = config.network.normalization is not Normalization.none
        part = split(config.batch, processes, normalized=normalized)
        if settings.step_images_per_second is not None:
            update = part.images / settings.step_images_per_second
        else:
            key = f"{_measured_as(config.network)} {part}"
            if key not in measured:
                measured[key] = rates.update_seconds(
                    config, classes, part.images, device, settings.steps
                )
            update = measured[key]
        work = _work(config, sources, classes)
        if work.parameters not in exchanges:
            exchanges[work.parameters] = rates.exchange_speed(world, device, work.parameters)
        bandwidth, latency = exchanges[work.parameters]
        if settings.exchange_gigabytes_per_second is not None:
            bandwidth = settings.exchange_gigabytes_per_second * GIGA
        if settings.exchange_microseconds is not None:
            latency = settings.exchange_microseconds * MICRO
        layout = Layout(processes, part.images, part.sharers, workers)
        speed = Speed(update, worker_rate, bandwidth, latency)
        planned.append(PlannedRun(config, work, speed, layout, forecast(work, speed, layout)))
    return planned


def rows(planned: list[PlannedRun]) -> list[PlanRow]:
    """A row a run, the ensemble's members together, and the sum of all."""
    members = [run for run in planned if run.config.recipe.name.startswith("ensemble_")]
    others = [run for run in planned if run not in members]
    made = [_row(run.config.recipe.name, [run]) for run in others]
    if members:
        made.append(_row(f"ensemble, {len(members)} runs", members))
    if len(made) > 1:
        made.append(_row("all", planned))
    return made


def _row(name: str, runs: list[PlannedRun]) -> PlanRow:
    updates = sum(run.work.updates for run in runs)

    def mean(values: list[float | None]) -> float | None:
        """Of an update, in milliseconds."""
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        weighted = zip(known, runs, strict=True)
        return sum(value * run.work.updates for value, run in weighted) / updates / MILLI

    forecasts = [run.forecast for run in runs]
    return PlanRow(
        run=name,
        updates=updates,
        update_ms=sum(each.training_seconds for each in forecasts) / updates / MILLI,
        compute_ms=mean([each.compute_seconds for each in forecasts]) or 0.0,
        exchange_ms=mean([each.exchange_seconds for each in forecasts]),
        loading_ms=mean([each.loading_seconds for each in forecasts]),
        waits_for="/".join(dict.fromkeys(each.bound for each in forecasts)),
        hours=sum(each.hours for each in forecasts),
        gpu_hours=sum(each.process_hours for each in forecasts),
    )


def lines(
    planned: list[PlannedRun], settings: PlanSettings, sources: Sources | None, data: DataConfig
) -> list[str]:
    """What the rows assume, then memory, shared memory and disk, one line each."""
    first = planned[0]
    config, layout = first.config, first.layout
    size, log_every = config.network.image_size, config.train.log_every
    said = [
        f"Update: {_origin(settings.step_images_per_second)}, of {layout.images} images a process "
        f"at {size} pixels; the members of the ensemble count as BN-x30. An evaluation is forward "
        "passes at a third of an update's cost.",
        _loading_line(first, settings),
        _exchange_line(first, settings),
    ]
    parameters = max(run.work.parameters for run in planned)
    saved = max(_saved(run) for run in planned)
    said.append(
        f"Device memory: {_size(device_bytes(parameters, saved))} a process: {parameters:,} "
        "parameters with gradients and momenta, and activations kept for the backward pass, "
        "counted in float32 (bf16 keeps about half of them); not the libraries' workspace, on CUDA "
        "about another GiB."
    )
    said.append(
        f"Memory: {_size(layout.workers * WORKER_BYTES)} for {in_words(layout.workers)} "
        f"(assumed: {_size(WORKER_BYTES)} each), and what the system can spare to keep the data in."
    )
    shared = shared_memory.needed(
        layout.workers,
        sum(
            shared_memory.batch_bytes(images, size) for images in (layout.images, EVALUATION_BATCH)
        ),
    )
    said.append(
        f"Shared memory: {_size(shared)} in {shared_memory.FOLDER} for batches on their way from "
        "workers, a training and an evaluation batch at a time."
    )
    folder = sum(
        run_folder_bytes(run.work.parameters, run.work.updates, log_every) for run in planned
    )
    said.append(
        f"Disk: {_data_line(sources, data)}; {_size(folder)} for all run folders (three "
        "checkpoints each, and the record)."
    )
    return said


def _work(config: RunConfig, sources: Sources | None, classes: int) -> Work:
    images = len(sources.train) if sources else results.IMAGENET_TRAIN_IMAGES
    durations = durations_of(config, images)
    network = _shape(config.network, classes)
    return Work(
        updates=durations.steps,
        evaluations=-(-durations.steps // durations.evaluate_every),
        validation_images=(
            len(sources.validation) if sources else results.IMAGENET_VALIDATION_IMAGES
        ),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        normalizations=len(running_statistics(network)) // 2,  # a mean and a variance each
    )


def _shape(config: NetworkConfig, classes: int) -> Inception:
    """The network without storage: for counting."""
    with torch.device("meta"):
        return Inception(config, classes)


def _measured_as(config: NetworkConfig) -> NetworkConfig:
    """The network that stands for this one: what sets an ensemble's member apart costs little."""
    return replace(config, dropout=0.0, per_activation=[], initial_weight_gain=1.0)


def _saved(run: PlannedRun) -> int:
    return saved_bytes(_shape(run.config.network, results.IMAGENET_CLASSES), run.layout.images)


def _loading_line(run: PlannedRun, settings: PlanSettings) -> str:
    rate, workers = run.speed.worker_images_per_second, run.layout.workers
    if rate is None:
        return (
            "Loading: not known and left out; give data= and data.root= to measure it, or "
            "plan.worker_images_per_second="
        )
    needed = run.layout.processes * run.layout.images / run.forecast.working_seconds
    return (
        f"Loading: {rate:,.0f} images/s a worker "
        f"({_origin(settings.worker_images_per_second)}), {in_words(workers)} of as many "
        f"free cores; training asks for {needed:,.0f} images/s, which is "
        f"{in_words(int(-(-needed // rate)))}."
    )


def _exchange_line(run: PlannedRun, settings: PlanSettings) -> str:
    layout, speed = run.layout, run.speed
    if layout.processes == 1:
        return "Exchange: one process has none; give plan.processes=N for several."
    sent = ring_bytes(run.work.parameters * FLOAT_BYTES, layout.processes)
    text = f"Exchange: a ring, {sent / 1e6:.0f} MB sent by each of {layout.processes} processes, "
    if speed.exchange_bytes_per_second is None:
        return text + (
            "left out; run this under torchrun to measure it, or give "
            "plan.exchange_gigabytes_per_second= and plan.exchange_microseconds="
        )
    text += (
        f"{speed.exchange_bytes_per_second / GIGA:.3g} GB/s and "
        f"{speed.exchange_latency / MICRO:.0f} microseconds "
        f"({_origin(settings.exchange_gigabytes_per_second)})"
    )
    if layout.sharers > 1:
        text += f", and BN statistics shared by {layout.sharers}: two exchanges a layer"
    return text + "; none of it hidden behind the backward pass."


def _data_line(sources: Sources | None, data: DataConfig) -> str:
    if sources is None:
        return f"ImageNet's archives as downloaded {_size(IMAGENET_BYTES)}, and as much for shards"
    total = sum(int(source.sizes.sum()) for source in (sources.train, sources.validation))
    return f"the images of data={data.kind.value} {_size(total)}"


def _origin(given: float | None) -> str:
    return "measured here" if given is None else "given"


def _size(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / MIB:,.0f} MiB"
