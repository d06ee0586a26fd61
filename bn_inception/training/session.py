"""A training run: how it begins or goes on, what is refused, and all that the loop works on."""

import signal
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from bn_inception.data import Sources, open_sources, preprocessing
from bn_inception.errors import AgreedError, UserError
from bn_inception.files import first_line
from bn_inception.network import Normalization, checkpoint, running_statistics
from bn_inception.record.environment import describe, read_environment, write_environment
from bn_inception.record.recorder import Recorder
from bn_inception.record.run_folder import RunFolder
from bn_inception.record.summary import Summary
from bn_inception.training.batches import Batches
from bn_inception.training.distributed import ALONE, World
from bn_inception.training.learner import Learner, start_momenta
from bn_inception.training.local_batch import local_batch, statement
from bn_inception.training.schedule import Due, Schedule
from bn_inception.training.settings import RunConfig
from bn_inception.training.step import TrainingMeter, require_finite

TO_RESUME = ("optimizer", "loss_has_fallen", "interval", "recorder")
"""What `last.pt` holds and `best.pt` does not."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Stopped(Exception):
    """Raised between two updates, or in an evaluation, where a StopRequest was seen."""


class StopRequest:
    """While entered, the first of these signals sets `signal`; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # under nohup the run outlives its terminal
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def received(self, number: int) -> None:
        """Take note of a signal that another process of the run received; 0 is none."""
        if number and self.signal is None:
            self.signal = signal.Signals(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


class Session:
    """One process's work on a run, at its beginning; `restore` takes it to a checkpoint.

    Attributes:
        identity: of the configuration, see `config.resume.identity`; checkpoints carry it.
        recorder: writes, in the first process.
        step: updates made, over all sessions of the run.
        population: BN's statistics at the last evaluation (Algorithm 2); empty without BN.
        loss_has_fallen: whether the training loss has ever been clearly under ln(classes).
        replaced: training images, since the last log step, whose place another one took.
        check_every_step: whether to look at the loss of every step at once, and to ask the other
            processes for signals and for data that cannot be read: free on the CPU, a stall of
            every step on CUDA, where log steps do.
    """

    def __init__(
        self, config: RunConfig, identity: str, sources: Sources, folder: RunFolder, world: World
    ) -> None:
        self.config, self.identity = config, identity
        self.folder, self.world = folder, world
        classes, images = len(sources.train.classes), config.batch.images
        self.schedule = Schedule.of(config, len(sources.train))
        normalized = config.network.normalization is not Normalization.none
        self.local = local_batch(config.batch, world.size, normalized=normalized)
        self.batches = Batches(config, sources, world, self.local)
        self.learner = Learner(config, classes, self.local, world)
        self.recorder = Recorder(
            folder if world.first else None,
            Summary(
                recipe=config.recipe.name,
                scale=config.scale.name,
                seed=config.run.seed,
                data=config.data.kind.value,
                classes=classes,
                parameters=sum(p.numel() for p in self.learner.network.parameters()),
                planned_steps=self.schedule.steps,
            ),
            batch=images,
            targets=config.milestones,
            hyperparameters=_hyperparameters(config),
        )
        self.meter = TrainingMeter(self.learner.device, images)
        self.step = 0
        self.population: dict[str, Tensor] = {}
        self.population_batches: int | None = None
        self.loss_has_fallen = False
        self.replaced: list[tuple[str, str]] = []
        self.check_every_step = self.learner.device.type == "cpu"
        self._saved_at = time.monotonic()

    @property
    def evaluated(self) -> bool:
        """Whether the weights as they are have been evaluated."""
        return self.recorder.last_validation_step == self.step

    def due(self, stop: StopRequest) -> Due:
        """What is to be done after the update just made; the same on all processes."""
        due = self.schedule.due(self.step)
        if self.check_every_step or self.world.size == 1 or Due.LOG in due:
            due |= self.ordered(stop)
        return due | Due.CHECK if due or self.check_every_step else due

    def ordered(self, stop: StopRequest) -> Due:
        """What signals and the clock make due at this moment; a meeting of all processes.

        A signal that another process received is entered in `stop`.
        """
        minutes = self.config.train.checkpoint_minutes
        late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        # Clocks differ: the first process's decides.
        number, late_at_first = self.world.highest(stop.signal or 0, late and self.world.first)
        stop.received(number)
        return (Due.STOP if number else Due.NOTHING) | (Due.SAVE if late_at_first else Due.NOTHING)

    def share_replaced(self) -> None:
        """Put every process's replaced images into the record."""
        for images in self.world.gathered(self.replaced):
            self.recorder.summary.replaced_images.update(images)
        self.replaced.clear()

    def save(self) -> None:
        """Write `last.pt` by the first process. UserError on all; broken weights: `Diverged`."""
        require_finite(self.learner.network, self.step)
        self.share_replaced()
        self.world.from_first(
            lambda: checkpoint.save(self._network_state() | self._rest(), self.folder.checkpoints)
        )
        self._saved_at = time.monotonic()

    def save_best(self) -> None:
        """Write `best.pt`, without what only training needs; otherwise as `save`."""
        self.world.from_first(
            lambda: checkpoint.save(self._network_state(), self.folder.checkpoints, checkpoint.BEST)
        )

    def _network_state(self) -> dict[str, Any]:
        # Weights that were not evaluated have no population statistics, and saving does not wait
        # for them: a signal may leave it seconds.
        population = self.population if self.evaluated else {}
        return {
            "step": self.step,
            "network": self.learner.network.state_dict() | population,
            "population_batches": self.population_batches if population else None,
            # Of the first process. On several they differ by the images, and nothing reads them
            # but `evaluate statistics=running`.
            "running_statistics": running_statistics(self.learner.network),
            "network_config": checkpoint.plain(self.config.network),
            "classes": list(self.batches.sources.train.classes),
            "recipe": self.config.recipe.name,
            "seed": self.config.run.seed,
            "identity": self.identity,
            "preprocessing": preprocessing.describe(self.config.data.backend),
        }

    def _rest(self) -> dict[str, Any]:
        """`TO_RESUME`."""
        return {
            "optimizer": self.learner.optimizer.state_dict(),
            "loss_has_fallen": self.loss_has_fallen,
            "interval": self.meter.state(),
            "recorder": self.recorder.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the run where a checkpoint's `state` left it."""
        learner = self.learner
        self.step = state["step"]
        if self.step > (planned := self.schedule.steps):
            raise UserError(f"train.steps: {planned}, but the run has made {self.step}; give more")
        self.loss_has_fallen = state["loss_has_fallen"]
        running = state["running_statistics"]
        learner.network.load_state_dict(state["network"] | running)
        self.population_batches = state["population_batches"]
        if self.population_batches is not None:
            self.population = {name: state["network"][name].to(learner.device) for name in running}
        learner.optimizer.load_state_dict(state["optimizer"])
        start_momenta(learner.optimizer)
        self.meter.restore(state["interval"])
        self.recorder.restore(state["recorder"], self.step)


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

    With several processes the first decides about the folder and reads the checkpoint for all. A
    new run folder is only made once everything else has been found good.

    Args:
        config: the run's configuration.
        config_text: the same as YAML, for the run folder.
        identity: a hash of what makes it this run; a checkpoint with another one is refused.
        resume: continue the run that is there instead of starting one.
        changed: settings that are others than the run had so far, (before, after) by key.
        say: told the warnings, and how the images are divided.
        world: the processes, connected.
    """
    sources = world.agreed(lambda: open_sources(config.data))
    for warning in sources.warnings:
        say(f"warning: {warning}")
    folder = RunFolder(config.run.root, config.run.name)
    session = world.agreed(lambda: Session(config, identity, sources, folder, world))
    if session.learner.remark is not None:
        say(f"warning: {session.learner.remark}")
    rate = config.optimizer.learning_rate
    if (said := statement(config.batch, session.local, world.size, rate=rate)) is not None:
        say(said)
    environment = _environment(session)
    try:
        state = world.from_first(lambda: _opened(session, environment, resume, say))
        if state is not None:
            world.agreed(lambda: _restore(session, state))
            _say_what_is_other(session, changed or {}, say)
        resumed_at = None if state is None else session.step
        world.from_first(
            lambda: write_environment(folder, config_text, environment, resumed_at, changed)
        )
        if state is None:
            world.agreed(session.recorder.start)
            session.save()
        session.learner.distribute()
    except BaseException:
        folder.close()
        raise
    return session


def _environment(session: Session) -> dict[str, Any]:
    world, device, sources = session.world, session.learner.device, session.batches.sources
    own = world.agreed(lambda: sources.fingerprint)
    first, *others = world.gathered(own)
    for rank, fingerprint in enumerate(others, start=1):
        if fingerprint != first:
            raise AgreedError(
                f"data.root: process {rank} reads other images than process 0 (fingerprint "
                f"{fingerprint[:12]}, not {first[:12]}); give every machine the same data"
            )
    gpus = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    return describe(first, gpus=gpus) | {
        "processes": world.size,
        "images_per_process": session.local.images,
        "normalization_group": session.local.group,
        "machine": session.learner.execution.machine.described(device),
    }


def _opened(
    session: Session, environment: dict[str, Any], resume: bool, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Lock the run's folder and read its checkpoint; None where none was ever written."""
    folder, config = session.folder, session.config
    if resume:
        folder.open_for_resume()
    else:
        folder.create()
    state = checkpoint.load_latest(folder.checkpoints, say, TO_RESUME)
    if state is None:
        # A run is saved at step 0 before its first update: without a checkpoint there is no step
        # to lose, unless somebody removed the checkpoints.
        lines = folder.metrics.exists() and folder.metrics.stat().st_size > 0
        if lines or (folder.checkpoints / checkpoint.BEST).exists():
            raise UserError(
                f"{folder.checkpoints}: holds no last.pt or previous.pt, but the run has made "
                "steps; restore the file, or start again under another run.name"
            )
        return None
    if state.get("identity") != session.identity:
        theirs = f"{state.get('recipe')}, seed {state.get('seed')}"
        raise UserError(
            f"{folder.checkpoints}: the checkpoint is of another run ({theirs}; this one "
            f"is {config.recipe.name}, seed {config.run.seed}, and config.yaml says the rest); "
            "restore this run's own from a copy"
        )
    _require_same_environment(folder, environment)
    return state


def _require_same_environment(folder: RunFolder, environment: dict[str, Any]) -> None:
    saved = read_environment(folder.environment)
    before, now = str(saved.get("data_fingerprint", "")), environment["data_fingerprint"]
    if before != now:
        raise UserError(
            f"data.root: the images differ from those {folder.path} was started with "
            f"(fingerprint {now[:12]}, was {before[:12]}); give the same data, "
            "or another run.name"
        )
    # Compared here and not with the configuration: null is another format on another device.
    machine = saved.get("machine")
    format_before = machine.get("precision") if isinstance(machine, dict) else None
    format_now = environment["machine"]["precision"]
    if format_before != format_now:
        raise UserError(
            f"machine.precision: {folder.path} was started in {format_before} and would go on in "
            f"{format_now}; give machine.precision={format_before}, or another run.name"
        )


def _restore(session: Session, state: dict[str, Any]) -> None:
    try:
        session.restore(state)
    except UserError:
        raise
    except Exception as error:
        # What does not fit raises nearly anything, deep in torch.
        raise UserError(
            f"{session.folder.checkpoints}: the checkpoint does not fit this run "
            f"({first_line(error)}); restore it from a copy, or start again under another run.name"
        ) from error


def _say_what_is_other(
    session: Session, changed: Mapping[str, tuple[Any, Any]], say: Callable[[str], None]
) -> None:
    for key, (before, now) in changed.items():
        say(f"{key} was {before}, is {now} from step {session.step} on")
    file, best = session.folder.checkpoints / checkpoint.BEST, session.recorder.summary.best
    if best is not None and not file.exists():
        say(
            f"warning: {file} is missing: the network of step {best.step}, the best so far, is lost"
        )
