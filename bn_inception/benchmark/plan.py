"""Hours, GPU-hours and device memory of runs that have not been made.

An update's time is measured where no rate is given; every line says what it assumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bn_inception.benchmark.step import our_step_alone
from bn_inception.benchmark.timing import Measured, Row, about_here, take_turn
from bn_inception.data import Sources
from bn_inception.errors import require_positive
from bn_inception.network import Inception, NetworkConfig, Normalization
from bn_inception.paper import results
from bn_inception.training.local_batch import LocalBatch, local_batch
from bn_inception.training.machine import choose_device, set_deterministic
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


def forecast(
    configs: Sequence[RunConfig], settings: PlanSettings, sources: Sources | None
) -> Measured:
    """A row a run, their sum, and what they assume.

    An update of each network is measured once, unless its rate is given. The configurations differ
    in their recipes. Without `sources` it plans for ImageNet.
    """
    machine = configs[0].machine
    device = choose_device(machine.device)
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    set_deterministic(machine.deterministic)
    classes, images = results.IMAGENET_CLASSES, results.IMAGENET_TRAIN_IMAGES
    held_out = results.IMAGENET_VALIDATION_IMAGES
    if sources is not None:
        classes, images = len(sources.train.classes), len(sources.train)
        held_out = len(sources.validation)
    seconds: dict[str, float] = {}
    rows: list[Row] = []
    sentences: list[str] = []
    for config in configs:
        normalized = config.network.normalization is not Normalization.none
        part = local_batch(config.batch, settings.processes, normalized=normalized)
        # What sets an ensemble's member apart costs little: one of them is measured.
        network = replace(config.network, dropout=0.0, per_activation=[], initial_weight_gain=1.0)
        key = f"{network} {part}"
        if settings.step_images_per_second is not None:
            seconds[key] = part.images / settings.step_images_per_second
        elif key not in seconds:
            way = our_step_alone(config, classes, part, device)
            take_turn(way, device, untimed=way.warm_up, units=settings.steps)
            seconds[key] = way.seconds[0] * part.images / max(2, part.images)
        schedule = Schedule.of(config, images)
        population = config.train.population_batches * config.batch.mini_batch if normalized else 0
        evaluations = -(-schedule.steps // schedule.evaluate_every)
        forward = seconds[key] / UPDATE_COST / (settings.processes * part.images)
        evaluating = evaluations * (held_out + population) * forward
        hours = (schedule.steps * seconds[key] + evaluating) / 3600
        rows.append(
            {
                "run": config.recipe.name,
                "updates": schedule.steps,
                "update_ms": 1e3 * seconds[key],
                "hours": hours,
                "gpu_hours": hours * settings.processes,
                "device_gib": _device_bytes(config.network, classes, part.images) / 2**30,
            }
        )
        sentences = sentences or _assumptions(config, settings, part, seconds[key])
    return Measured([*rows, *_sum(rows)], about_here(device=device), sentences)


def _sum(rows: Sequence[Row]) -> list[Row]:
    """A row for all runs; none for a single one."""
    if len(rows) == 1:
        return []
    updates, hours, gpu_hours = (
        sum(row[key] for row in rows) for key in ("updates", "hours", "gpu_hours")
    )
    milliseconds = sum(row["updates"] * row["update_ms"] for row in rows) / updates
    gib = max(row["device_gib"] for row in rows)
    return [dict(zip(rows[0], ("all", updates, milliseconds, hours, gpu_hours, gib), strict=True))]


def _device_bytes(config: NetworkConfig, classes: int, images: int) -> int:
    """Weights, gradients, momenta, and what a forward pass keeps for the backward pass, float32.

    The pass runs on a network without storage. Each storage that it keeps is counted once.
    """
    with torch.device("meta"):
        network = Inception(config, classes).train()
        batch = torch.empty(max(2, images), 3, config.image_size, config.image_size)
    own = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}  # kept alive, so that no address is reused

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(batch)
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    activations = activations * images // max(2, images)
    return 3 * FLOAT_BYTES * sum(tensor.numel() for tensor in network.parameters()) + activations


def _assumptions(
    config: RunConfig, settings: PlanSettings, part: LocalBatch, update_seconds: float
) -> list[str]:
    """What the rows assume, a line a column."""
    origin = "measured here" if settings.step_images_per_second is None else "given"
    rate = settings.processes * part.images / update_seconds
    return [
        f"Update: {origin}, of {part.images} images a process at {config.network.image_size} "
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
