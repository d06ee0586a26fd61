"""A training run between its opening and its end: everything the loop works on."""

import time
from typing import Any

from torch import Tensor

from bn_inception.data import Sources, preprocessing
from bn_inception.network import Normalization, checkpoint, running_statistics
from bn_inception.record import Recorder, RunFolder, Summary
from bn_inception.training.batches import Batches
from bn_inception.training.distributed import World
from bn_inception.training.learner import Learner
from bn_inception.training.local_batch import local_batch
from bn_inception.training.meter import TrainingMeter
from bn_inception.training.optimizer import start_momenta
from bn_inception.training.schedule import Due, Schedule
from bn_inception.training.settings import RunConfig
from bn_inception.training.signals import StopRequest

TO_RESUME = ("optimizer", "loss_has_fallen", "interval", "recorder")
"""What `last.pt` holds and `best.pt` does not."""


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
        signal, late_at_first = self.world.highest(stop.signal or 0, late and self.world.first)
        stop.received(signal)
        return (Due.STOP if signal else Due.NOTHING) | (Due.SAVE if late_at_first else Due.NOTHING)

    def share_replaced(self) -> None:
        """Put every process's replaced images into the record."""
        for images in self.world.gathered(self.replaced):
            self.recorder.summary.replaced_images.update(images)
        self.replaced.clear()

    def save(self) -> None:
        """Write `last.pt`. The first process does; its UserError is raised on all."""
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
            "population_batches": self.config.train.population_batches if population else None,
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
        self.loss_has_fallen = state["loss_has_fallen"]
        running = state["running_statistics"]
        learner.network.load_state_dict(state["network"] | running)
        if state["population_batches"] == self.config.train.population_batches:
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
