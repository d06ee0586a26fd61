"""The speed of one update: the plain loop, each piece of the fast step, our loop, and the limit.

All ways of one batch size take turns in one process: round by round, every way makes some updates
on the same prepared batches, and the medians over the rounds are compared. What a way needs only
once (compilation, capture, memory) happens in a round before the first that counts.
"""

import io
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bn_inception.benchmark.reference_loop import ReferenceLoop
from bn_inception.benchmark.rows import StepRow
from bn_inception.data import TrainingBatch, default_workers
from bn_inception.data.photometric import draw_factors
from bn_inception.data.source import DataKind
from bn_inception.errors import UserError
from bn_inception.network import (
    Inception,
    Precision,
    feature_values,
    initialize,
    multiply_adds,
    set_precision,
)
from bn_inception.record import describe
from bn_inception.training import Console, Session, StopRequest, choose_device, open_session, train
from bn_inception.training.capture import WARM_UP
from bn_inception.training.execution import Execution
from bn_inception.training.machine import Machine
from bn_inception.training.optimizer import build_optimizer
from bn_inception.training.settings import Resume, RunConfig
from bn_inception.training.step import StepResult, train_step

NEVER = 10**12
"""A step that is not reached."""
PREPARED = 4
"""Batches that all ways go through, again and again."""
BACKWARD = 2
"""Products of the backward pass for each of the forward pass: for inputs and for weights."""
PASSES = 12
"""The limit's assumption on memory: how often the values that the convolutions put out are read or
written in an update. Forward 5: written, read for the statistics, read and written for BN and the
nonlinearity in one, read by the next layer. Backward 7: for the nonlinearity and BN two tensors
read for their sums, the same two read and one written for the gradient, which the convolution reads
for its inputs' gradient and for its weights'. Pools, concatenations and weights are left out."""
PLAIN = "plain loop"
BARE = "ours: bare step"
LOOP = "ours: whole loop"
LOADED = "ours: whole loop, from the loader"
AUGMENTATION = "augmentation alone"
LIMIT = "limit"


@dataclass
class StepBenchmark:
    """The keys `benchmark.*` of `configs/benchmark_step.yaml`.

    Attributes:
        batches: images in an update; None is [32] on the CPU, [32, 256] on CUDA.
        steps: updates in a turn; None is 2 on the CPU, 20 on CUDA.
        rounds: turns of every way.
    """

    batches: list[int] | None = None
    steps: int | None = None
    rounds: int = 5

    def __post_init__(self) -> None:
        for name, values in (
            ("batches", self.batches or []),
            ("steps", [self.steps or 1]),
            ("rounds", [self.rounds]),
        ):
            for value in values:
                if value < (2 if name == "batches" else 1):
                    raise UserError(f"benchmark.{name}: {value} is too small")
        if self.batches is not None and not self.batches:
            raise UserError("benchmark.batches: is empty; give sizes such as [32,256], or null")


@dataclass(frozen=True)
class StepSpeeds:
    """The rows, sentences that say what they mean, and what they were measured on."""

    rows: list[StepRow]
    sentences: list[str]
    about: dict[str, Any]


@dataclass
class _Way:
    """One way to make updates, and the seconds an update took in each of its turns."""

    name: str
    prepare: Callable[[], object]
    step: Callable[[int], object]
    warm_up: int
    note: str = ""
    failure: str = ""

    def __post_init__(self) -> None:
        self.seconds: list[float] = []


def benchmark_step(
    config: RunConfig, settings: StepBenchmark, say: Callable[[str], None]
) -> StepSpeeds:
    """Measure every way at every batch size.

    Args:
        config: recipe, scale, machine and data.
        settings: sizes and numbers of turns.
        say: told what is being measured.

    Raises:
        UserError: as for a training run.
    """
    device = choose_device(config.machine.device)
    cuda = device.type == "cuda"
    steps = settings.steps or (20 if cuda else 2)
    rows: list[StepRow] = []
    sentences: list[str] = []
    about = describe("", gpus=[torch.cuda.get_device_name(device)] if cuda else [])
    del about["data_fingerprint"]
    about |= {"benchmark": "step", "recipe": config.recipe.name, "steps": steps}
    about |= {"rounds": settings.rounds, "image_size": config.network.image_size}
    about |= {"width": config.network.width}
    for images in settings.batches or ([32, 256] if cuda else [32]):
        say(f"{images} images an update")
        # One BN group, as in the plain loop: the same network, and the same work.
        batch = replace(config.batch, global_size=images, norm_group=images)
        with tempfile.TemporaryDirectory(prefix="benchmark-step-") as folder:
            run = replace(config.run, root=folder, resume=Resume.false)
            # The loop is measured, not evaluations and checkpoints, which it leaves out of its own
            # images/s as well.
            train = replace(
                config.train,
                steps=NEVER,
                evaluate_every=NEVER,
                checkpoint_every=NEVER,
                checkpoint_minutes=None,
            )
            found, said, machine = _measure(
                replace(config, batch=batch, run=run, train=train),
                images,
                steps,
                settings.rounds,
                say,
            )
        rows += found
        sentences += said
        about["machine"] = machine
    return StepSpeeds(rows, sentences, about)


def _measure(
    config: RunConfig, images: int, steps: int, rounds: int, say: Callable[[str], None]
) -> tuple[list[StepRow], list[str], dict[str, Any]]:
    """All ways at one batch size: rows, sentences, and the resolved machine."""
    stop = StopRequest()
    session = open_session(config, "", resume=False, say=say)
    with session.folder:
        batches = _prepared(session, images)
        ways = _ways(session, batches)
        loop = _Way(LOOP, _prepare(session.machine, session.device), lambda step: None,
                    WARM_UP + 2)  # fmt: skip
        loaded = _Way(LOADED, loop.prepare, lambda step: None, 1)
        loader = session.training_batches
        read = config.data.kind is not DataKind.synthetic

        def fed() -> Generator[TrainingBatch, None, None]:
            """Take turns with the loop: it is measured from outside, in what it waits for."""
            for turn in range(-1, rounds):
                say(f"  round {turn + 1} of {rounds}" if turn >= 0 else "  warm-up")
                # Every other round the other way round: none always meets the warmer machine.
                for way in ways if turn % 2 else reversed(ways):
                    _turn(way, way.warm_up if turn < 0 else steps, session.device, turn)
                loop.prepare()
                count = loop.warm_up if turn < 0 else steps
                with _timed(loop, count, session.device, turn):
                    for step in range(count):
                        yield batches[step % PREPARED]
            if read:
                yield from _from_loader(session, loader(), loaded, steps * rounds, say)
            stop.received(signal.SIGTERM)
            yield batches[0]

        session.training_batches = fed  # type: ignore[method-assign]
        # Not to the terminal: the loop's own lines are not what was asked for.
        console = Console(config.run.name, session.plan.steps, 0, io.StringIO())
        try:
            train(session, console, stop)
        finally:
            console.close()
        every = [*ways, loop, *([loaded] if read else [])]
        limit, assumption = _limit(session, images)
    reference = _median(every[0])
    assert reference is not None
    rows = [_row(way, images, reference) for way in every]
    rows.append(StepRow(LIMIT, images, limit * 1e3, images / limit, reference / limit, assumption))
    return rows, _sentences(every, images), session.machine.described(session.device)


def _ways(session: Session, batches: list[TrainingBatch]) -> list[_Way]:
    """The plain loop, our step with one piece more each time, our bare step, the augmentation."""
    device, config = session.device, session.config
    floats = [session.execution.to_input(b.images.to(device), b.factors.to(device))
              .contiguous() for b in batches]  # fmt: skip
    labels = [batch.labels.to(device) for batch in batches]
    optimizer = config.optimizer
    plain = ReferenceLoop(
        _network(session, Machine(channels_last=False)),
        session.config.optimizer.learning_rate,
        optimizer.momentum,
        optimizer.weight_decay,
    )
    ways = [
        _Way(
            PLAIN,
            plain.prepare,
            lambda step: plain.step(floats[step % PREPARED], labels[step % PREPARED]),
            1,
            "eager, NCHW, float32, metrics read at every step",
        )
    ]
    for name, machine in _pieces(device, compiled=session.machine.compile):
        ways.append(_our_step(name, session, machine, floats, labels, bare=False))
    ours = _our_step(BARE, session, session.machine, floats, labels, bare=True)
    ours.note = "forward, backward, update: " + _named(session.machine)
    execution = Execution(session.machine, device)
    on_device = [(b.images.to(device), b.factors.to(device)) for b in batches]
    augmentation = _Way(
        AUGMENTATION,
        _prepare(session.machine, device),
        lambda step: execution.to_input(*on_device[step % PREPARED]),
        1,
        "uint8 and factors to the network's input",
    )
    return [*ways, ours, augmentation]


def _pieces(device: torch.device, *, compiled: bool) -> Iterator[tuple[str, Machine]]:
    """Our step with nothing on, and with each piece that the device has turned on in turn.

    On the CPU, where compilation takes minutes, it is a piece where machine.compile=true asks for.
    """
    cuda = device.type == "cuda"
    machine = Machine(channels_last=False, fused_update=False)
    yield "our step, every piece off", machine
    turned: list[tuple[str, dict[str, Any]]] = [
        ("+ channels_last", {"channels_last": True}),
        ("+ fused update", {"fused_update": True}),
        ("+ bf16", {"precision": Precision.bf16}),
    ]
    if cuda:
        turned.insert(2, ("+ tf32", {"precision": Precision.tf32}))
    if compiled:
        turned.append(("+ compile", {"compile": True}))
    if cuda:
        turned.append(("+ CUDA graphs", {"cuda_graphs": True}))
    for name, piece in turned:
        machine = replace(machine, **piece)
        yield name, machine


def _our_step(
    name: str,
    session: Session,
    machine: Machine,
    floats: list[Tensor],
    labels: list[Tensor],
    *,
    bare: bool,
) -> _Way:
    """`train_step`, or no more than forward pass, backward pass and update."""
    execution = Execution(machine, session.device)
    network = _network(session, machine)
    optimizer = build_optimizer(network, session.rates, fused=machine.fused_update)
    inputs = [images.contiguous(memory_format=machine.memory_format) for images in floats]

    def update(images: Tensor, labels: Tensor) -> StepResult:
        total, main, correct = execution.forward(network, images, labels)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return StepResult(main.detach(), correct, correct)

    def step(number: int) -> object:
        images, truth = inputs[number % PREPARED], labels[number % PREPARED]
        if not bare:
            return train_step(
                network, optimizer, images, truth, session.config.optimizer.learning_rate,
                forward=execution.forward, graph=execution.graph,
            )  # fmt: skip
        if execution.graph is None:
            return update(images, truth)
        return execution.graph(update, optimizer.zero_grad, images, truth)

    return _Way(name, _prepare(machine, session.device), step, WARM_UP + 2 if machine.cuda_graphs
                else 2 if machine.compile else 1)  # fmt: skip


def _prepare(machine: Machine, device: torch.device) -> Callable[[], object]:
    def prepare() -> None:
        torch.backends.cudnn.benchmark = False  # as a run of ours finds it
        set_precision(machine.precision, device, key="machine.precision")

    return prepare


def _network(session: Session, machine: Machine) -> Inception:
    network = Inception(session.config.network, session.network.num_classes)
    initialize(network, torch.Generator().manual_seed(0))
    return network.to(session.device).to(memory_format=machine.memory_format).train()


def _prepared(session: Session, images: int) -> list[TrainingBatch]:
    """Batches of noise, as the loader would make them."""
    config, size = session.config, session.config.network.image_size
    draw = np.random.default_rng(0)
    batches = []
    for _ in range(PREPARED):
        pixels = torch.from_numpy(draw.integers(0, 256, (images, size, size, 3), np.uint8))
        factors = [draw_factors(config.augmentation.photometric, draw) for _ in range(images)]
        labels = torch.from_numpy(draw.integers(0, session.network.num_classes, images))
        batches.append(
            TrainingBatch(
                pixels.permute(0, 3, 1, 2), torch.from_numpy(np.stack(factors)), labels, []
            )
        )
    return batches


class _timed:  # noqa: N801
    """Adds the seconds of one of `count` updates inside to `way`, from turn 0 on."""

    def __init__(self, way: _Way, count: int, device: torch.device, turn: int) -> None:
        self._way, self._count, self._device, self._turn = way, count, device, turn

    def __enter__(self) -> None:
        _wait(self._device)
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            return
        _wait(self._device)
        if self._turn >= 0:
            self._way.seconds.append((time.perf_counter() - self._start) / self._count)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _turn(way: _Way, count: int, device: torch.device, turn: int) -> None:
    if way.failure:
        return
    try:
        way.prepare()
        with _timed(way, count, device, turn):
            for step in range(count):
                way.step(step)
    except (RuntimeError, UserError) as error:
        if way.name == PLAIN:
            raise
        # torch.compile without a working compiler, or too little memory: one row, not all.
        lines = str(error).strip().splitlines()
        way.failure = f"failed: {lines[0][:120] if lines else type(error).__name__}"
        way.seconds.clear()


def _from_loader(
    session: Session,
    batches: Generator[TrainingBatch, None, None],
    loaded: _Way,
    count: int,
    say: Callable[[str], None],
) -> Generator[TrainingBatch, None, None]:
    """Feed the loop from the loader: first what was read ahead, then `count` batches, timed."""
    workers = session.config.data.workers
    workers = default_workers() if workers is None else workers
    ahead = 4 * workers + 1
    say(f"  from the loader: {workers} workers, {ahead} batches read ahead, then {count}")
    loaded.note = f"{workers} workers"
    try:
        for _ in range(ahead):
            yield next(batches)
        with _timed(loaded, count, session.device, 0):
            for _ in range(count):
                yield next(batches)
    finally:
        batches.close()


def _median(way: _Way) -> float | None:
    return statistics.median(way.seconds) if way.seconds else None


def _row(way: _Way, images: int, reference: float) -> StepRow:
    seconds = _median(way)
    if seconds is None:
        return StepRow(way.name, images, None, None, None, way.failure or way.note)
    ratio = None if way.name == AUGMENTATION else reference / seconds
    return StepRow(way.name, images, seconds * 1e3, images / seconds, ratio, way.note)


def _sentences(ways: list[_Way], images: int) -> list[str]:
    medians = {way.name: _median(way) for way in ways}
    bare, loop, loaded = (medians.get(name) for name in (BARE, LOOP, LOADED))
    augmentation = medians[AUGMENTATION]
    said = []
    if bare and loop and augmentation:
        said.append(
            f"{images} images: the loop takes {loop / bare - 1:+.1%} over the bare step, of which "
            f"{augmentation / bare:.1%} are the augmentation"
        )
    if loop and loaded:
        share = max(0.0, 1 - loop / loaded)
        said.append(f"{images} images: {share:.1%} of a step from the loader is loading")
    return said


def _limit(session: Session, images: int) -> tuple[float, str]:
    """Seconds that no update can be faster than, by two measured rates; and the assumption."""
    device, precision = session.device, session.machine.precision
    size = session.config.network.image_size
    operations = 2 * multiply_adds(session.network, size) * (1 + BACKWARD) * images
    width = 2 if precision is Precision.bf16 else 4
    values = feature_values(session.network, size) * images
    _prepare(session.machine, device)()
    rate, bandwidth = matrix_rate(device, precision), copy_rate(device)
    products, memory = operations / rate, PASSES * values * width / bandwidth
    return max(products, memory), (
        f"products {products * 1e3:.3g} ms at {rate / 1e9:.4g} GFLOP/s ({precision.value}), memory "
        f"{memory * 1e3:.3g} ms at {bandwidth / 1e9:.3g} GB/s ({PASSES} passes assumed)"
    )


def matrix_rate(device: torch.device, precision: Precision, repeats: int = 5) -> float:
    """Floating-point operations a second of a large matrix product; the best of `repeats`."""
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _best(lambda: one @ other, device, repeats)


def copy_rate(device: torch.device, repeats: int = 5) -> float:
    """Bytes a second, read and written together, of a large copy; the best of `repeats`."""
    count = 2**28 if device.type == "cuda" else 2**26
    source = torch.zeros(count, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * count / _best(lambda: target.copy_(source), device, repeats)


def _best(action: Callable[[], object], device: torch.device, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _named(machine: Machine) -> str:
    names = ("compile", "cuda_graphs", "channels_last", "fused_update")
    return ", ".join([machine.precision.value, *(name for name in names if getattr(machine, name))])
