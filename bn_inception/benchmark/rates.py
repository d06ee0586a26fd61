"""Short measurements of what `benchmark.forecast` starts from."""

import statistics
import time
from collections.abc import Callable
from contextlib import closing

import torch

from bn_inception.benchmark.forecast import FLOAT_BYTES, ring_bytes
from bn_inception.data import Sources, TrainingOrder, training_batches
from bn_inception.network import Inception, initialize, set_precision
from bn_inception.training.batch import Split
from bn_inception.training.capture import WARM_UP
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.execution import Execution
from bn_inception.training.machine import resolve
from bn_inception.training.optimizer import build_optimizer
from bn_inception.training.settings import RunConfig
from bn_inception.training.step import train_step

EXCHANGES = 20


def worker_images_per_second(config: RunConfig, sources: Sources, batches: int) -> float:
    """Images that one process decodes, cuts and packs in a second, on the configured data.

    Args:
        config: of a run.
        sources: its images.
        batches: mini-batches that are read, after one that is not counted.
    """
    order = TrainingOrder(
        len(sources.train),
        config.batch.global_size,
        config.run.seed,
        config.order.within_shard_shuffling,
        config.order.shard_size,
    )
    made = training_batches(
        sources.train,
        order,
        start_step=0,
        stop_step=batches + 1,
        image_size=config.network.image_size,
        augmentation=config.augmentation,
        seed=config.run.seed,
        workers=0,
        on_error=config.data.on_error,
        backend=config.data.backend,
    )
    with closing(made):
        next(made)
        start = time.perf_counter()
        count = sum(len(batch.images) for batch in made)
        return count / (time.perf_counter() - start)


def exchange_speed(
    world: World, device: torch.device, parameters: int
) -> tuple[float | None, float]:
    """Bytes a second of a process's link, and seconds of the smallest exchange: medians.

    Args:
        world: the processes, connected.
        device: on which gradients lie.
        parameters: of the network, as many float32 are summed.

    Returns:
        (None, 0) in a world of one.
    """
    if world.size == 1:
        return None, 0.0
    latency = _median_seconds(world, torch.zeros(1, device=device))
    seconds = _median_seconds(world, torch.zeros(parameters, device=device))
    sent = ring_bytes(parameters * FLOAT_BYTES, world.size)
    return sent / max(seconds - latency, 1e-9), latency


def _median_seconds(world: World, values: torch.Tensor) -> float:
    wait: Callable[[], None] = torch.cuda.synchronize if values.is_cuda else lambda: None
    times = []
    for _ in range(EXCHANGES):
        wait()
        start = time.perf_counter()
        world.total(values)
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first makes the connections


def update_seconds(
    config: RunConfig, classes: int, images: int, device: torch.device, updates: int
) -> float:
    """Median seconds of forward, backward and update of one process alone, on random images.

    Args:
        config: of a run; its network and machine.
        classes: outputs.
        images: in the update, one mini-batch to BN.
        device: of the network.
        updates: that are timed; those that compile and capture come before.

    Raises:
        UserError: a piece of the machine that this device cannot have.
    """
    machine = resolve(config.machine, device, Split(images, images, 1, 1), ALONE)
    set_precision(machine.precision, device, key="machine.precision")
    execution = Execution(machine, device)
    network = Inception(config.network, classes)
    initialize(network, torch.Generator().manual_seed(0))
    network = network.to(device).to(memory_format=machine.memory_format).train()
    optimizer = build_optimizer(network, config.optimizer, fused=machine.fused_update)
    size = config.network.image_size
    inputs = torch.rand(images, 3, size, size, device=device).mul_(2).sub_(1)
    inputs = inputs.contiguous(memory_format=machine.memory_format)
    labels = torch.arange(images, device=device) % classes
    # Compilation, warm-up, capture and one more; on the CPU seconds each, so no more than needed.
    untimed = WARM_UP + 2 if machine.cuda_graphs or machine.compile else 1
    times = []
    for _ in range(untimed + updates):
        start = time.perf_counter()
        result = train_step(
            network,
            optimizer,
            inputs,
            labels,
            config.optimizer.learning_rate,
            forward=execution.forward,
            graph=execution.graph,
        )
        result.finite.item()  # waits for the device
        times.append(time.perf_counter() - start)
    return statistics.median(times[untimed:])
