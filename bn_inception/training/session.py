"""A training run between its opening and its end: everything the loop works on."""

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bn_inception.data import (
    Sources,
    TrainingBatch,
    TrainingOrder,
    ValidationBatch,
    default_workers,
    open_sources,
    preprocessing,
    shared_memory,
    training_batches,
    validation_batches,
)
from bn_inception.data.loader import shared_ranges
from bn_inception.errors import AgreedError, UserError
from bn_inception.network import (
    Inception,
    Normalization,
    Precision,
    Processes,
    checkpoint,
    initialize,
    running_statistics,
    set_precision,
    set_statistics,
)
from bn_inception.record import Recorder, RunFolder, SilentRecorder, Summary, describe
from bn_inception.training.batch import split, statement
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.duration import steps, whole_steps
from bn_inception.training.execution import Execution
from bn_inception.training.machine import resolve, set_deterministic
from bn_inception.training.optimizer import build_optimizer, start_momenta
from bn_inception.training.settings import Device, RunConfig
from bn_inception.training.signals import StopRequest
from bn_inception.training.step import StepResult

T = TypeVar("T")

BEST = checkpoint.BEST
TO_RESUME = ("optimizer", "evaluated_step", "loss_has_fallen", "interval", "recorder")
"""What `last.pt` holds and `best.pt` does not."""
EVALUATION_BATCH = 64
"""Images in an evaluation batch: bounds memory; the result does not depend on it."""
_INITIALIZATION, _STEP = 1, 2
"""Tags that keep the seeds of different uses apart."""


@dataclass(frozen=True)
class Plan:
    """The durations of a run, in steps."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    start_check: int
    decay_steps: float
    warmup_steps: float


def plan(config: RunConfig, images: int) -> Plan:
    """Turn the configured durations into steps, for a training set of `images`."""
    batch, train = config.batch.images, config.train

    def whole(key: str) -> int:
        return whole_steps(getattr(train, key), batch=batch, images=images, key=f"train.{key}")

    return Plan(
        steps=whole("steps"),
        evaluate_every=whole("evaluate_every"),
        checkpoint_every=whole("checkpoint_every"),
        log_every=train.log_every,
        start_check=whole("start_check"),
        decay_steps=steps(
            config.optimizer.decay_every, batch=batch, images=images, key="optimizer.decay_every"
        ),
        warmup_steps=0.0
        if config.optimizer.warmup is None
        else steps(config.optimizer.warmup, batch=batch, images=images, key="optimizer.warmup"),
    )


def choose_device(device: Device, world: World = ALONE) -> torch.device:
    """Turn `machine.device` into a device; each of several processes has a GPU of its own.

    Raises:
        UserError: CUDA is asked for and there is none, or there are fewer than processes.
    """
    if device is Device.cuda and not torch.cuda.is_available():
        raise UserError("machine.device: cuda, but torch sees no CUDA device; use auto or cpu")
    if device is Device.auto:
        device = Device.cuda if torch.cuda.is_available() else Device.cpu
    if device is Device.cuda and world.size > 1:
        if world.local_size > torch.cuda.device_count():
            raise UserError(
                f"machine.device: {world.local_size} processes on a machine with "
                f"{torch.cuda.device_count()} CUDA devices; start one for each"
            )
        torch.cuda.set_device(world.local_rank)
        return torch.device("cuda", world.local_rank)
    return torch.device(device.value)


def derived_seed(seed: int, tag: int, step: int = 0, rank: int = 0) -> int:
    """Mix the run's seed, a use, a step and a process into one seed: no history is in it."""
    words = [seed, tag, step, rank] if rank else [seed, tag, step]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return int(state[0] >> 1)


class Interval:
    """Sums since the last log step, kept on the device so that no step waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, correct
        self._first_nonfinite = torch.zeros((), dtype=torch.int64, device=device)
        self.steps = 0
        self.images = 0
        self._images_timed = 0
        self._seconds = 0.0
        self._clock = time.perf_counter()

    def add(self, result: StepResult, images: int, step: int) -> None:
        """Add update number `step` (from 1) of `images` images."""
        self._sums += torch.stack([result.loss.double(), result.correct.double()])
        fresh = ~result.finite & (self._first_nonfinite == 0)
        self._first_nonfinite += fresh * step
        self.steps += 1
        self.images += images
        self._images_timed += images

    def first_nonfinite(self) -> int | None:
        """The first update whose loss was not finite, if any (a synchronization on CUDA)."""
        return int(self._first_nonfinite) or None

    def loss(self) -> float:
        """Mean main loss of the interval's updates."""
        return float(self._sums[0]) / self.steps

    def top1(self) -> float:
        """Training accuracy over the interval, a fraction."""
        return float(self._sums[1]) / self.images

    def images_per_second(self) -> float:
        """Images since the run was opened over the seconds; what was restored is in neither."""
        seconds = self._seconds + time.perf_counter() - self._clock
        return self._images_timed / seconds if seconds > 0 else 0.0

    def start_clock(self) -> None:
        """Count time from here on."""
        self._clock = time.perf_counter()

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave out what happens inside: evaluations and checkpoints are not training."""
        self._seconds += time.perf_counter() - self._clock
        yield
        self.start_clock()

    def reset(self) -> None:
        """Start a new interval."""
        self._sums.zero_()
        self.steps = self.images = self._images_timed = 0
        self._seconds = 0.0
        self.start_clock()

    def state(self) -> dict[str, float]:
        """The sums, for a checkpoint made inside an interval."""
        loss, correct = self._sums.tolist()
        return {"loss": loss, "correct": correct, "steps": self.steps, "images": self.images}

    def restore(self, state: dict[str, float]) -> None:
        """Take up the sums of `state`."""
        self._sums.copy_(torch.tensor([state["loss"], state["correct"]], dtype=torch.float64))
        self.steps, self.images = int(state["steps"]), int(state["images"])


class Orders(NamedTuple):
    """What a run is to do between two updates, besides going on.

    Attributes:
        stop: save and end.
        save: `train.checkpoint_minutes` have gone by since the last checkpoint.
    """

    stop: bool
    save: bool


class Session:
    """One process's work on a run: built new, or restored from a checkpoint.

    Attributes:
        config: the run's configuration.
        plan: its durations in steps.
        sources: training and validation images.
        world: the processes that share the run.
        split: this process's part of an update.
        machine: what `config.machine` comes to on `device`.
        execution: the same at work.
        remarks: what the user should know about them, lines.
        network: on `device`, in training mode; its `state_dict` is what is saved.
        model: what training calls: `network`, or around it what averages the gradients.
        identity: of the configuration, see `config.resume.identity`; checkpoints carry it.
        step: updates made, over all sessions of the run.
        evaluated_step: the last step that was evaluated.
        population: BN's statistics at that step by Algorithm 2, by name; empty without BN.
        interval: sums since the last log step.
        loss_has_fallen: whether the training loss has ever been clearly under ln(classes).
        check_every_step: whether to look at the loss of every step at once, and to ask the other
            processes for signals and for data that cannot be read: free on the CPU, a stall of
            every step on CUDA, where log steps do.
    """

    def __init__(
        self, config: RunConfig, sources: Sources, folder: RunFolder, world: World
    ) -> None:
        self.config = config
        self.sources = sources
        self.folder = folder
        self.world = world
        self.identity = ""
        self.plan = plan(config, len(sources.train))
        # Too few to divide is found now, not after hours at the first evaluation.
        shared_ranges(len(sources.validation), EVALUATION_BATCH, world.rank, world.size)
        self.split = split(
            config.batch,
            world.size,
            normalized=config.network.normalization is not Normalization.none,
        )
        # While it evaluates, a process has training batches and others on their way: first those
        # of Algorithm 2, then held-out images.
        size = config.network.image_size
        shared_memory.require(
            self.workers(),
            shared_memory.batch_bytes(self.split.images, size)
            + shared_memory.batch_bytes(max(EVALUATION_BATCH, config.batch.mini_batch), size),
            world.local_size,
        )
        self.device = choose_device(config.machine.device, world)
        if config.machine.threads is not None:
            torch.set_num_threads(config.machine.threads)
        self.machine = resolve(config.machine, self.device, self.split, world)
        remark = set_precision(self.machine.precision, self.device, key="machine.precision")
        set_deterministic(self.machine.deterministic)
        self.remarks = [] if remark is None else [f"warning: {remark}"]
        self.execution = Execution(self.machine, self.device, world.size)
        network = Inception(config.network, len(sources.train.classes))
        seed = derived_seed(config.run.seed, _INITIALIZATION)
        initialize(network, torch.Generator().manual_seed(seed))
        memory_format = self.machine.memory_format
        self.network = network.to(self.device).to(memory_format=memory_format).train()
        self.model: nn.Module = self.network
        set_statistics(self.network, groups=self.split.groups)
        self.optimizer = build_optimizer(
            self.network, config.optimizer, fused=self.machine.fused_update
        )
        self._dropout = _default_generator(self.device)
        self.interval = Interval(self.device)
        self.step = self.evaluated_step = 0
        self.population: dict[str, Tensor] = {}
        self.loss_has_fallen = False
        self.check_every_step = self.device.type == "cpu"
        self._replaced: list[tuple[str, str]] = []
        self._saved_at = time.monotonic()
        self.recorder = (Recorder if world.first else SilentRecorder)(
            folder,
            Summary(
                recipe=config.recipe.name,
                scale=config.scale.name,
                seed=config.run.seed,
                data=config.data.kind.value,
                classes=len(sources.train.classes),
                parameters=sum(parameter.numel() for parameter in network.parameters()),
                planned_steps=self.plan.steps,
            ),
            batch=config.batch.images,
            targets=config.milestones,
            hyperparameters=_hyperparameters(config),
        )

    def distribute(self) -> None:
        """Join the other processes: shared BN statistics, averaged gradients.

        Called once the state is that of the run's beginning or of a checkpoint.
        """
        if self.world.size == 1:
            return
        if self.split.sharers > 1:
            group = self.world.subgroup(self.split.sharers)
            set_statistics(self.network, processes=Processes(group))
        with warnings.catch_warnings():
            # Newer torch has another name for broadcast_buffers, which older torch does not know.
            warnings.simplefilter("ignore", FutureWarning)
            self.model = DistributedDataParallel(
                self.execution.wrapped(self.network),
                device_ids=[self.device] if self.device.type == "cuda" else None,
                # Running statistics, which training does not read: each process has its own.
                broadcast_buffers=False,
            )
        # After its first backward pass the wrapper lays the gradients out anew, and the order in
        # which more than two processes' gradients are summed depends on the layout: a resumed run
        # must not take its first step in another one than the run it continues. Costs one step.
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        size = self.config.network.image_size
        images = torch.zeros(self.split.images, 3, size, size, device=self.device)
        with self.execution.computing():
            outputs = self.model(images.contiguous(memory_format=self.machine.memory_format))
        loss = torch.cat(list(outputs) if isinstance(outputs, tuple) else [outputs]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.network.load_state_dict(before)
        self.optimizer.zero_grad(set_to_none=True)

    def training_batches(self) -> Generator[TrainingBatch, None, None]:
        """Yield this process's part of the mini-batches from the current step to the last."""
        config = self.config
        order = TrainingOrder(
            len(self.sources.train),
            config.batch.images,
            config.run.seed,
            config.order.within_shard_shuffling,
            config.order.shard_size,
        )
        batches = training_batches(
            self.sources.train,
            order,
            start_step=self.step,
            stop_step=self.plan.steps,
            image_size=config.network.image_size,
            augmentation=config.augmentation,
            seed=config.run.seed,
            workers=self.workers(),
            on_error=config.data.on_error,
            backend=config.data.backend,
            places=self.split.places(self.world.rank),
        )
        return self._together(batches, agree=self.check_every_step)

    def validation_batches(self) -> Generator[ValidationBatch, None, None]:
        """Yield this process's part of the held-out images, each once, single crop."""
        batches = validation_batches(
            self.sources.validation,
            image_size=self.config.network.image_size,
            batch=EVALUATION_BATCH,
            workers=self.workers(),
            on_error=self.config.data.on_error,
            backend=self.config.data.backend,
            share=(self.world.rank, self.world.size),
        )
        return self._together(batches, agree=True)

    def _together(
        self, batches: Generator[T, None, None], *, agree: bool
    ) -> Generator[T, None, None]:
        """The batches; with `agree`, where one process cannot have its next, none goes on.

        All processes have the same number of them. Agreed, a UserError strikes all between two
        updates, so that they can save together.
        """
        with closing(batches):
            while True:
                self.world.mark()
                if agree:
                    batch = self.world.agreed(lambda: next(batches, None))
                else:
                    batch = next(batches, None)
                self.world.mark()
                if batch is None:
                    return
                yield batch

    def workers(self) -> int:
        """Processes that read: as configured; by default those of a machine share its cores."""
        configured = self.config.data.workers
        return default_workers(self.world.local_size) if configured is None else configured

    def seed_step(self) -> None:
        """Seed dropout from (seed, step, rank): a resumed run draws what it would have drawn."""
        self._dropout.manual_seed(
            derived_seed(self.config.run.seed, _STEP, self.step, self.world.rank)
        )

    def orders(self, stop: StopRequest, *, ask: bool = True) -> Orders:
        """What is to be done now; with several processes, the same on all of them.

        Args:
            stop: this process's; a signal that another one received is entered there.
            ask: whether this is a place where the processes tell each other.
        """
        minutes = self.config.train.checkpoint_minutes
        due = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        if self.world.size > 1:
            if not ask:
                return Orders(stop=False, save=False)
            # Clocks differ: the first process's decides.
            signal, due_at_first = self.world.highest(stop.signal or 0, due and self.world.first)
            stop.received(signal)
            due = bool(due_at_first)
        return Orders(stop=bool(stop), save=due)

    def replaced(self, images: Iterable[tuple[str, str]]) -> None:
        """Tally training images that this process replaced: (name, reason)."""
        self._replaced += images

    def share_replaced(self) -> None:
        """Put every process's replaced images into the record."""
        for images in self.world.gathered(self._replaced):
            self.recorder.replaced(images)
        self._replaced = []

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint: `last.pt`, or `best.pt` without what only training needs.

        The first process writes it; its UserError is raised on all.
        """
        if not best:
            self.share_replaced()
        self.world.from_first(lambda: self._write(best))
        if not best:
            self._saved_at = time.monotonic()

    def _write(self, best: bool) -> None:
        # Weights that were not evaluated have no population statistics, and saving does not wait
        # for them: a signal may leave it seconds.
        population = self.population if self.evaluated_step == self.step else {}
        state: dict[str, Any] = {
            "step": self.step,
            "network": self.network.state_dict() | population,
            "population_batches": self.config.train.population_batches if population else None,
            # Of the first process. On several they differ by the images, and nothing reads them
            # but `evaluate statistics=running`.
            "running_statistics": running_statistics(self.network),
            "network_config": checkpoint.plain(self.config.network),
            "classes": list(self.sources.train.classes),
            "recipe": self.config.recipe.name,
            "seed": self.config.run.seed,
            "identity": self.identity,
            "preprocessing": preprocessing.describe(self.config.data.backend),
        }
        if best:
            checkpoint.save(state, self.folder.checkpoints, checkpoint.BEST)
            return
        state["optimizer"] = self.optimizer.state_dict()
        state["evaluated_step"] = self.evaluated_step
        state["loss_has_fallen"] = self.loss_has_fallen
        state["interval"] = self.interval.state()
        state["recorder"] = self.recorder.state()
        checkpoint.save(state, self.folder.checkpoints)

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the run where a checkpoint's `state` left it."""
        self.step = state["step"]
        self.evaluated_step = state["evaluated_step"]
        self.loss_has_fallen = state["loss_has_fallen"]
        running = state["running_statistics"]
        self.network.load_state_dict(state["network"] | running)
        if state["population_batches"] == self.config.train.population_batches:
            self.population = {name: state["network"][name].to(self.device) for name in running}
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = self.machine.fused_update  # of this machine, not of the saved one
        start_momenta(self.optimizer)  # machine.channels_last may be another; step 0 may have none
        self.interval.restore(state["interval"])
        self.recorder.restore(state["recorder"], self.step)


def open_session(
    config: RunConfig,
    config_text: str,
    *,
    identity: str = "",
    resume: bool,
    changed: Mapping[str, tuple[Any, Any]] | None = None,
    say: Callable[[str], None],
    world: World = ALONE,
) -> Session:
    """Open the data, build the network, and create or reopen the run folder, locked.

    With several processes the first decides about the folder and reads the checkpoint for all.

    Args:
        config: the run's configuration.
        config_text: the same as YAML, for the run folder.
        identity: a hash of what makes it this run; a checkpoint with another one is refused.
        resume: continue the run that is there instead of starting one.
        changed: settings that are others than the run had so far, (before, after) by key: they
            are said, recorded, and take effect from the checkpoint on.
        say: told the warnings, and how the images are divided.
        world: the processes, connected.

    Raises:
        UserError: data, network, device or folder cannot be used. A new run folder is only made
            once everything else has been found good.
    """
    sources = world.agreed(lambda: open_sources(config.data))
    for warning in sources.warnings:
        say(f"warning: {warning}")
    folder = RunFolder(config.run.root, config.run.name)
    session = world.agreed(lambda: Session(config, sources, folder, world))
    session.identity = identity
    said = statement(config.batch, session.split, world.size, rate=config.optimizer.learning_rate)
    for line in [*session.remarks, *([] if said is None else [said])]:
        say(line)
    fingerprint = world.agreed(
        lambda: f"{sources.train.fingerprint()}+{sources.validation.fingerprint()}"
    )
    _require_one_set(world.gathered(fingerprint))
    environment = describe(fingerprint, gpus=_gpus(session.device))
    environment |= {"processes": world.size, "images_per_process": session.split.images}
    environment |= {"normalization_group": session.split.group}
    environment |= {"machine": session.machine.described(session.device)}

    def open_folder() -> dict[str, Any] | None:
        if resume:
            folder.open_for_resume()
        else:
            folder.create()
        state = checkpoint.load_latest(folder.checkpoints, say, TO_RESUME)
        if state is None:
            _require_no_steps(folder)
        else:
            _require_same_run(state, folder, config, identity)
            _require_metrics(state, folder)
            _require_same_data(folder, fingerprint)
            _require_same_precision(folder, session.machine.precision)
        return state

    def describe_start() -> None:
        folder.write_config(config_text)
        folder.write_environment(environment)

    def describe_continuation() -> None:
        folder.write_environment(environment, resumed_at=session.step, changed=changed)
        if changed:
            folder.write_config(config_text)

    try:
        state = world.from_first(open_folder)
        if state is not None:
            world.agreed(lambda: _restore(session, state))
            step = session.step
            for key, (before, now) in (changed or {}).items():
                say(f"{key} was {before}, is {now} from step {step} on")
            if session.recorder.best is not None and not (folder.checkpoints / BEST).exists():
                say(
                    f"warning: {folder.checkpoints / BEST} is missing: the network of step "
                    f"{session.recorder.best.step}, the best so far, is lost"
                )
            world.from_first(describe_continuation)
        else:
            world.from_first(describe_start)
            world.agreed(session.recorder.start)
            session.save()
        session.distribute()
    except BaseException:
        folder.close()
        raise
    return session


def _require_one_set(fingerprints: list[str]) -> None:
    for rank, fingerprint in enumerate(fingerprints):
        if fingerprint != fingerprints[0]:
            raise AgreedError(
                f"data.root: process {rank} reads other images than process 0 (fingerprint "
                f"{fingerprint[:12]}, not {fingerprints[0][:12]}); give every machine the same data"
            )


def _restore(session: Session, state: dict[str, Any]) -> None:
    try:
        session.restore(state)
    except UserError:
        raise
    except Exception as error:
        # What does not fit raises nearly anything, deep in torch.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{session.folder.checkpoints}: the checkpoint does not fit this run ({reason}); "
            "restore it from a copy, or start again under another run.name"
        ) from error


def _require_same_run(
    state: dict[str, Any], folder: RunFolder, config: RunConfig, identity: str
) -> None:
    if state.get("identity") != identity:
        theirs = f"{state.get('recipe')}, seed {state.get('seed')}"
        raise UserError(
            f"{folder.checkpoints}: the checkpoint is of another run ({theirs}; this one is "
            f"{config.recipe.name}, seed {config.run.seed}, and config.yaml says the rest); "
            "restore this run's own from a copy"
        )


def _require_metrics(state: dict[str, Any], folder: RunFolder) -> None:
    # Before the record is opened, which makes the file.
    recorder = state["recorder"]
    lines = recorder.get("metrics_lines") if isinstance(recorder, dict) else None
    if lines and not folder.metrics.exists():
        raise UserError(
            f"{folder.metrics}: missing, but the checkpoint at step {state['step']} was made with "
            f"{lines} lines; restore the file, or start a new run under another run.name"
        )


def _require_same_precision(folder: RunFolder, precision: Precision) -> None:
    # Compared here and not with the configuration: null is another format on another device.
    machine = folder.read_environment().get("machine")
    before = machine.get("precision") if isinstance(machine, dict) else None
    if before != precision.value:
        raise UserError(
            f"machine.precision: {folder.path} was started in {before} and would go on in "
            f"{precision.value}; give machine.precision={before}, or another run.name"
        )


def _require_same_data(folder: RunFolder, fingerprint: str) -> None:
    before = str(folder.read_environment().get("data_fingerprint", ""))
    if before != fingerprint:
        raise UserError(
            f"data.root: the images differ from those {folder.path} was started with "
            f"(fingerprint {fingerprint[:12]}, was {before[:12]}); give the same data, "
            "or another run.name"
        )


def _require_no_steps(folder: RunFolder) -> None:
    # A run is saved at step 0 before its first update: without a checkpoint there is no step to
    # lose, unless somebody removed the checkpoints.
    steps = folder.metrics.exists() and folder.metrics.stat().st_size > 0
    if steps or (folder.checkpoints / BEST).exists():
        raise UserError(
            f"{folder.checkpoints}: holds no last.pt or previous.pt, but the run has made steps; "
            "restore the file, or start again under another run.name"
        )


def _hyperparameters(config: RunConfig) -> dict[str, bool | int | float | str]:
    network, optimizer = config.network, config.optimizer
    return {
        "recipe": config.recipe.name,
        "scale": config.scale.name,
        "data": config.data.kind.value,
        "seed": config.run.seed,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "batch": config.batch.images,
        "normalization": network.normalization.value,
        "nonlinearity": network.nonlinearity.value,
        "dropout": network.dropout,
        "local_response_normalization": network.local_response_normalization,
        "within_shard_shuffling": config.order.within_shard_shuffling,
        "photometric": config.augmentation.photometric.value,
    }


def _default_generator(device: torch.device) -> torch.Generator:
    """What dropout draws from on `device`.

    Seeding it alone costs a microsecond a step; torch.manual_seed, which seeds those of all kinds
    of devices, or notes down the caller where there is none, took ninety.
    """
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()  # type: ignore[no-untyped-call]
    index = torch.cuda.current_device() if device.index is None else device.index
    generator: torch.Generator = torch.cuda.default_generators[index]
    return generator


def _gpus(device: torch.device) -> list[str]:
    return [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
