"""A training run between its opening and its end: everything the loop works on."""

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bn_inception.data import (
    Sources,
    TrainingBatch,
    TrainingOrder,
    ValidationBatch,
    open_sources,
    preprocessing,
    training_batches,
    validation_batches,
)
from bn_inception.errors import UserError
from bn_inception.network import Inception, checkpoint, initialize
from bn_inception.record import Recorder, RunFolder, Summary, describe
from bn_inception.training.duration import steps, whole_steps
from bn_inception.training.optimizer import build_optimizer
from bn_inception.training.settings import Device, RunConfig
from bn_inception.training.step import StepResult

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


def plan(config: RunConfig, images: int) -> Plan:
    """Turn the configured durations into steps, for a training set of `images`."""
    batch, train = config.batch.global_size, config.train

    def whole(key: str) -> int:
        return whole_steps(getattr(train, key), batch=batch, images=images, key=f"train.{key}")

    return Plan(
        steps=whole("steps"),
        evaluate_every=whole("evaluate_every"),
        checkpoint_every=whole("checkpoint_every"),
        log_every=train.log_every,
        start_check=train.start_check,
        decay_steps=steps(
            config.optimizer.decay_every, batch=batch, images=images, key="optimizer.decay_every"
        ),
    )


def choose_device(device: Device) -> torch.device:
    """Turn `machine.device` into a device.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    if device is Device.cuda and not torch.cuda.is_available():
        raise UserError("machine.device: cuda, but torch sees no CUDA device; use auto or cpu")
    if device is Device.auto:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device.value)


def derived_seed(seed: int, tag: int, step: int = 0) -> int:
    """Mix the run's seed, a use and a step into one seed: randomness depends on no history."""
    state = np.random.SeedSequence([seed, tag, step]).generate_state(1, np.uint64)
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
        """Images of this process over its seconds; what was restored counts in neither."""
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


class Session:
    """One process's work on a run: built new, or restored from a checkpoint.

    Attributes:
        config: the run's configuration.
        plan: its durations in steps.
        sources: training and validation images.
        network: on `device`, channels_last, in training mode.
        step: updates made, over all sessions of the run.
        evaluated_step: the last step that was evaluated.
        interval: sums since the last log step.
        loss_has_fallen: whether the training loss has ever been clearly under ln(classes).
        check_every_step: whether to look at the loss of every step at once: free on the CPU,
            a stall of every step on CUDA, where log steps look.
    """

    def __init__(self, config: RunConfig, sources: Sources, folder: RunFolder) -> None:
        self.config = config
        self.sources = sources
        self.folder = folder
        self.plan = plan(config, len(sources.train))
        self.device = choose_device(config.machine.device)
        if config.machine.threads is not None:
            torch.set_num_threads(config.machine.threads)
        network = Inception(config.network, len(sources.train.classes))
        seed = derived_seed(config.run.seed, _INITIALIZATION)
        initialize(network, torch.Generator().manual_seed(seed))
        self.network = network.to(self.device).to(memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.interval = Interval(self.device)
        self.step = self.evaluated_step = 0
        self.loss_has_fallen = False
        self.check_every_step = self.device.type == "cpu"
        self.recorder = Recorder(
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
            batch=config.batch.global_size,
            targets=config.milestones,
            hyperparameters=_hyperparameters(config),
        )

    def training_batches(self) -> Generator[TrainingBatch, None, None]:
        """Yield the mini-batches from the current step to the last."""
        config = self.config
        order = TrainingOrder(
            len(self.sources.train),
            config.batch.global_size,
            config.run.seed,
            config.order.within_shard_shuffling,
            config.order.shard_size,
        )
        return training_batches(
            self.sources.train,
            order,
            start_step=self.step,
            stop_step=self.plan.steps,
            image_size=config.network.image_size,
            augmentation=config.augmentation,
            seed=config.run.seed,
            workers=config.data.workers,
            on_error=config.data.on_error,
        )

    def validation_batches(self) -> Generator[ValidationBatch, None, None]:
        """Yield every held-out image once, single crop."""
        return validation_batches(
            self.sources.validation,
            image_size=self.config.network.image_size,
            batch=EVALUATION_BATCH,
            workers=self.config.data.workers,
            on_error=self.config.data.on_error,
        )

    def seed_step(self) -> None:
        """Seed dropout from (seed, step), so that a resumed run draws what it would have drawn."""
        torch.manual_seed(derived_seed(self.config.run.seed, _STEP, self.step))

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint: `last.pt`, or `best.pt` without what only training needs."""
        state: dict[str, Any] = {
            "step": self.step,
            "network": self.network.state_dict(),
            "network_config": checkpoint.plain(self.config.network),
            "classes": list(self.sources.train.classes),
            "recipe": self.config.recipe.name,
            "preprocessing": preprocessing.describe(),
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
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.interval.restore(state["interval"])
        self.recorder.restore(state["recorder"], self.step)


def open_session(
    config: RunConfig, config_text: str, *, resume: bool, say: Callable[[str], None]
) -> Session:
    """Open the data, build the network, and create or reopen the run folder, locked.

    Args:
        config: the run's configuration.
        config_text: the same as YAML, for the run folder.
        resume: continue the run that is there instead of starting one.
        say: told the warnings.

    Raises:
        UserError: data, network, device or folder cannot be used. A new run folder is only made
            once everything else has been found good.
    """
    sources = open_sources(config.data)
    for warning in sources.warnings:
        say(f"warning: {warning}")
    folder = RunFolder(config.run.root, config.run.name)
    session = Session(config, sources, folder)
    fingerprint = f"{sources.train.fingerprint()}+{sources.validation.fingerprint()}"
    environment = describe(fingerprint, gpus=_gpus(session.device))
    if resume:
        folder.open_for_resume()
    else:
        folder.create()
    try:
        state = checkpoint.load_latest(folder.checkpoints, say)
        if state is not None:
            _require_same_data(folder, fingerprint)
            session.restore(state)
            folder.write_environment(environment, resumed_at=session.step)
        else:
            _require_no_steps(folder)
            folder.write_config(config_text)
            folder.write_environment(environment)
            session.recorder.start()
            session.save()
    except BaseException:
        folder.close()
        raise
    return session


def _require_same_data(folder: RunFolder, fingerprint: str) -> None:
    try:
        before = json.loads(folder.environment.read_text(encoding="utf-8"))["data_fingerprint"]
    except (OSError, ValueError, LookupError) as error:
        raise UserError(
            f"{folder.environment}: cannot be read ({error}); restore it from a copy, or start "
            "again under another run.name"
        ) from error
    if before != fingerprint:
        raise UserError(
            f"data.root: the images differ from those {folder.path} was started with "
            f"(fingerprint {fingerprint[:12]}, was {before[:12]}); give the same data, "
            "or another run.name"
        )


def _require_no_steps(folder: RunFolder) -> None:
    # A run is saved at step 0 before its first update: without a checkpoint there is no step to
    # lose, unless somebody removed the checkpoints.
    if folder.metrics.exists() and folder.metrics.stat().st_size > 0:
        raise UserError(
            f"{folder.checkpoints}: holds no checkpoint, but the run has made steps; restore the "
            "file, or start again under another run.name"
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
        "batch": config.batch.global_size,
        "normalization": network.normalization.value,
        "nonlinearity": network.nonlinearity.value,
        "dropout": network.dropout,
        "local_response_normalization": network.local_response_normalization,
        "within_shard_shuffling": config.order.within_shard_shuffling,
        "photometric": config.augmentation.photometric.value,
    }


def _gpus(device: torch.device) -> list[str]:
    return [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
