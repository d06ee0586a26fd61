"""The speed of one update: the plain loop, each piece of the fast step, our loop.

All ways of one batch size take turns in one process, on the same prepared batches.
"""

import io
import itertools
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from bn_inception.benchmark.reference import PlainLoop
from bn_inception.benchmark.timing import (
    Measured,
    Row,
    Way,
    about_here,
    each_other_way_round,
    repeated,
    take_turn,
    timed,
)
from bn_inception.data import DataKind, TrainingBatch, default_workers
from bn_inception.errors import UserError, require_at_least
from bn_inception.files import first_line
from bn_inception.network import Inception, Precision, initialize, set_precision
from bn_inception.network.normalization import BatchNorm, set_statistics
from bn_inception.quoting import say
from bn_inception.training.console import Console
from bn_inception.training.learner import build_optimizer
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.loop import train
from bn_inception.training.machine import Execution, Machine, choose_device, resolve
from bn_inception.training.schedule import Schedule
from bn_inception.training.session import Session, StopRequest, open_session
from bn_inception.training.settings import Resume, RunConfig
from bn_inception.training.step import train_step

NEVER = 10**12  # a step that is not reached
WARM_UP = 5  # updates of the loop before it is timed
PREPARED = 4  # batches that all ways go through, again and again
PLAIN, OURS, AUGMENTATION = "plain loop", "ours: step alone", "augmentation alone"
POPULATION = "population statistics, a mini-batch"
LOOP, LOADED = "ours: whole loop", "ours: whole loop, from the loader"


@dataclass
class StepBenchmark:
    """The keys `benchmark.*` of `configs/benchmark_step.yaml`, which says what they mean."""

    batches: list[int] | None = None
    steps: int | None = None
    rounds: int = 5

    def __post_init__(self) -> None:
        require_at_least("benchmark.batches", min(self.batches or [2]), 2)
        require_at_least("benchmark.steps", self.steps, 1)
        require_at_least("benchmark.rounds", self.rounds, 1)


def benchmark_step(config: RunConfig, settings: StepBenchmark) -> Measured:
    """Measure every way at every batch size."""
    device = choose_device(config.machine.device)
    cuda = device.type == "cuda"
    steps = settings.steps or (20 if cuda else 2)
    # The loop is measured, not evaluations and checkpoints.
    endless = replace(config.train, steps=NEVER, evaluate_every=NEVER, checkpoint_every=NEVER,
                      checkpoint_minutes=None)  # fmt: skip
    rows: list[Row] = []
    for images in settings.batches or ([32, 256] if cuda else [32]):
        say(f"{images} images an update")
        # One BN group, as in the plain loop: the same network, and the same work.
        batch = replace(config.batch, images=images, norm_group=images)
        with tempfile.TemporaryDirectory(prefix="benchmark-step-") as folder:
            run = replace(config.run, root=folder, resume=Resume.never)
            here = replace(config, batch=batch, run=run, train=endless)
            session = open_session(here, "", resume=False, say=say)
            with session.folder:
                ways = _measured(session, steps, settings.rounds)
        every = Schedule.of(config, len(session.batches.sources.train)).evaluate_every
        part = config.batch.mini_batch / config.batch.images  # of an update: a mini-batch of BN
        _note_share(ways, config.train.population_batches, every, part)
        rows += [_row(way, ways[0], images) for way in ways]
    about = about_here(device=device) | {
        "recipe": config.recipe.name,
        "steps": steps,
        "rounds": settings.rounds,
        "image_size": config.network.image_size,
        "width": config.network.width,
        "machine": session.learner.execution.machine.described(device),
    }
    return Measured(rows, about)


def _measured(session: Session, steps: int, rounds: int) -> list[Way]:
    """All ways at the session's batch size, the plain loop first, with their seconds."""
    device, ended, loader = session.learner.device, StopRequest(), session.batches.training
    batches = list(loader(0, PREPARED, agree=True))
    ways, prepared = _ways(session, batches), itertools.cycle(batches)
    # The loop asks for its batches: it is measured from outside, in what it waits for.
    loop, from_loader = (Way(name, repeated(int, int)) for name in (LOOP, LOADED))  # never started

    def fed(start: int, stop: int, *, agree: bool) -> Generator[TrainingBatch, None, None]:
        for turn in range(-1, rounds):
            say(f"  round {turn + 1} of {rounds}" if turn >= 0 else "  warm-up")
            for way in each_other_way_round(ways, turn):
                _turn(way, steps if turn >= 0 else 0, device)
            _prepare(session.learner.execution.machine, device)
            updates = steps if turn >= 0 else WARM_UP
            with timed(loop, updates, device):
                yield from itertools.islice(prepared, updates)
        loop.seconds.pop(0)  # the warm-up
        if session.config.data.kind is not DataKind.synthetic:
            with closing(loader(start, stop, agree=agree)) as read:
                workers = session.config.data.workers
                workers = default_workers() if workers is None else workers
                say(f"  from the loader, {workers} workers")
                yield from itertools.islice(read, 4 * workers + 1)  # what was read ahead
                for _ in range(rounds):
                    with timed(from_loader, steps, device):
                        yield from itertools.islice(read, steps)
        ended.received(signal.SIGTERM)
        yield next(prepared)

    session.batches.training = fed  # type: ignore[method-assign]
    # Not to the terminal: the loop's own lines are not what was asked for.
    with closing(Console(io.StringIO())) as console:
        if diverged := train(session, console, ended).diverged:
            remedy = "give a smaller optimizer.learning_rate"
            raise UserError(f"benchmark: it diverged at step {diverged.step}; {remedy}")
    return [*ways, loop, *([from_loader] if from_loader.seconds else [])]


def _note_share(ways: list[Way], mini_batches: int, every: int, part: float) -> None:
    """Say at the population statistics what those of one evaluation cost beside its updates."""
    named = {way.name: way for way in ways}
    population, loop = named.get(POPULATION), named[LOOP]
    if population and population.median and loop.median:
        share = mini_batches * part * population.median / (every * loop.median)
        population.note = (
            f"{mini_batches} every {every:,} updates: {share:.1%} of their time, without loading"
        )


def _turn(way: Way, units: int, device: torch.device) -> None:
    """A turn of `units` updates, or the warm-up; a piece that fails has a row that says so."""
    if way.failure:
        return
    try:
        take_turn(way, device, untimed=0 if units else way.warm_up, units=units)
    except (RuntimeError, UserError) as error:
        if way.name == PLAIN:
            raise
        # torch.compile without a working compiler, or too little memory.
        way.failure = f"failed: {first_line(error)[:120]}"
        way.seconds.clear()


def _ways(session: Session, batches: list[TrainingBatch]) -> list[Way]:
    """The plain loop, our step with each piece more and as configured, the augmentation."""
    learner, config = session.learner, session.config
    device, machine = learner.device, learner.execution.machine
    execution = Execution(machine, device)
    labels, factors, pixels = (
        [getattr(batch, name).to(device) for batch in batches]
        for name in ("labels", "factors", "images")
    )
    floats = [execution.to_input(*each).contiguous() for each in zip(pixels, factors, strict=True)]
    classes = learner.network.num_classes
    network = _network(config, classes, device).to(memory_format=torch.contiguous_format)
    plain = PlainLoop(network, config.optimizer)
    ready = partial(_prepare, machine, device)
    copy = _network(config, classes, device).eval()
    layers = [layer for layer in copy.modules() if isinstance(layer, BatchNorm)]
    for layer in layers:  # they alone are as in training: `population_statistics` has it so
        layer.training = True

    def population(images: Tensor) -> object:
        with torch.no_grad():
            return copy(images)

    pieces = [*_pieces(device, compiled=machine.compile), (OURS, machine)]
    return [
        Way(PLAIN, repeated(plain.prepare, plain.step, floats, labels),
            note="eager, NCHW, float32, metrics read at every step"),
        *(our_step(name, config, piece, floats, labels, classes) for name, piece in pieces),
        Way(AUGMENTATION, repeated(ready, execution.to_input, pixels, factors),
            note="uint8 and factors to the network's input"),
        *([Way(POPULATION, repeated(ready, population, [images.contiguous(
            memory_format=torch.channels_last) for images in floats]))] if layers else []),
    ]  # fmt: skip


def _pieces(device: torch.device, *, compiled: bool) -> Iterator[tuple[str, Machine]]:
    """Our step in float32, in the device's other formats, and compiled where it is configured."""
    yield "our step in float32", Machine()
    if device.type == "cuda":
        yield "+ tf32", Machine(Precision.tf32)
    yield "+ bf16", Machine(Precision.bf16)
    if compiled:
        yield "+ compile", Machine(Precision.bf16, compile=True)


def our_step(
    name: str,
    config: RunConfig,
    machine: Machine,
    floats: list[Tensor],
    labels: list[Tensor],
    classes: int,
    groups: int = 1,
) -> Way:
    """`train_step` on `machine`; `floats` are images (N, 3, S, S) there, `labels` (N,) int64."""
    device = floats[0].device
    execution, network = Execution(machine, device), _network(config, classes, device)
    set_statistics(network, groups=groups)
    optimizer = build_optimizer(network, config.optimizer)
    inputs = [images.contiguous(memory_format=torch.channels_last) for images in floats]

    def step(images: Tensor, truth: Tensor) -> object:
        rate = config.optimizer.learning_rate
        return train_step(network, optimizer, images, truth, rate, forward=execution.forward)

    start = repeated(partial(_prepare, machine, device), step, inputs, labels)
    note = f"{machine.precision.value}{', compiled' * machine.compile}"
    return Way(name, start, 1 + machine.compile, note)


def our_step_alone(config: RunConfig, classes: int, part: LocalBatch, device: torch.device) -> Way:
    """`our_step` as configured, on a process's part of random images, of two at least for BN."""
    images = max(2, part.images)
    machine = resolve(config.machine, device, replace(part, sharers=1))
    size = config.network.image_size
    inputs = torch.rand(images, 3, size, size, device=device).mul_(2).sub_(1)
    labels = torch.arange(images, device=device) % classes
    return our_step("", config, machine, [inputs], [labels], classes, part.groups)


def _prepare(machine: Machine, device: torch.device) -> None:
    torch.backends.cudnn.benchmark = False  # as a run of ours finds it
    set_precision(machine.precision, device, key="machine.precision")


def _network(config: RunConfig, classes: int, device: torch.device) -> Inception:
    network = Inception(config.network, classes)
    initialize(network, torch.Generator().manual_seed(0))
    return network.to(device).to(memory_format=torch.channels_last).train()


def _row(way: Way, plain: Way, images: int) -> Row:
    seconds, apart = way.median, way.name in (AUGMENTATION, POPULATION)
    return {
        "name": way.name,
        "batch": images,
        "milliseconds": None if seconds is None else seconds * 1e3,
        "images_per_second": None if seconds is None else images / seconds,
        "ratio_to_reference": None if apart else way.speedup(plain),
        "note": way.failure or way.note,
    }
