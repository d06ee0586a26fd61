"""The whole typed configuration of a training run, as `bn_inception.config` composes it."""

import math
from dataclasses import dataclass, field
from enum import Enum

from bn_inception.data import AugmentationConfig, DataConfig, OrderConfig
from bn_inception.errors import UserError, require_at_least, require_positive
from bn_inception.network import NetworkConfig, Precision
from bn_inception.record.summary import milestones
from bn_inception.training.probe import ProbeConfig

Duration = int | float | str
"""A number of steps, or a text such as "8 epochs": see `schedule.steps`."""


class Resume(Enum):
    """Whether a run continues an earlier one; `auto` does where there is one."""

    never = "never"
    must = "must"
    auto = "auto"


class Device(Enum):
    """Where the network runs; `auto` is CUDA if there is one, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass
class RecipeConfig:
    """One of the paper's runs, before a scale changes it.

    Durations are in its own steps of 32 images, the rate is the initial one.
    """

    name: str
    steps: float
    decay_every: float
    start_check: float
    learning_rate: float


@dataclass
class ScaleConfig:
    """Image size in pixels, width multiplier, and what changes every recipe alike.

    Attributes:
        compression: divides every duration.
        rate_factor: multiplies every learning rate. A shortened run at the paper's rates crawls:
            docs/fidelity.md says by which rule the factor was found.
        evaluate_every: from one evaluation to the next, in the paper's steps of 32 images.
        population_batches: mini-batches over which an evaluation takes BN's statistics.
    """

    name: str
    image_size: int
    width: float
    compression: float
    rate_factor: float
    evaluate_every: float
    population_batches: int

    def __post_init__(self) -> None:
        require_positive("scale.compression", self.compression)
        require_positive("scale.rate_factor", self.rate_factor)


@dataclass
class RunSettings:
    """Where a run lives, its seed, and whether it continues."""

    name: str
    root: str
    seed: int
    resume: Resume

    def __post_init__(self) -> None:
        require_at_least("run.seed", self.seed, 0)


@dataclass
class OptimizerConfig:
    """SGD with momentum and a staircase decay (GN section 6; BN sections 4.2 and 4.2.1).

    Attributes:
        learning_rate: initial rate.
        momentum: 0.9 in GN and in every public port; neither Nesterov nor gradient clipping.
        weight_decay: L2 on the weights of convolutions and linear layers only.
        decay_factor: what the rate is multiplied by, 0.96 in GN.
        decay_every: how often (a duration).
        warmup: a duration over which the rate rises linearly from nothing; None starts at the full
            rate, as the paper. For large batches (Goyal et al. 2017, arXiv 1706.02677).
    """

    learning_rate: float
    momentum: float
    weight_decay: float
    decay_factor: float
    decay_every: Duration
    warmup: Duration | None = None

    def __post_init__(self) -> None:
        rates = "the paper's rates are 0.0015, 0.0075 and 0.045"
        require_positive("optimizer.learning_rate", self.learning_rate, rates)
        for key, allowed, limits in (
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("decay_factor", 0 < self.decay_factor <= 1, "in (0, 1]; 1 keeps the rate constant"),
        ):
            if not allowed:
                raise UserError(f"optimizer.{key}: {getattr(self, key)} is not {limits}")


@dataclass
class BatchConfig:
    """The images of one update, and the mini-batch of Batch Normalization in them.

    Attributes:
        images: in one update, over all processes (the paper: 32).
        norm_group: images over which BN takes its statistics, however many a process holds; a
            smaller `batch.images` is one group. 32 is the paper's mini-batch, and CNTK's BN
            statistics when it trained at 256.
        synchronized: where a process holds less than a group, share the statistics with those that
            hold the rest; otherwise each process's images are a group.
        rate_factor: multiplies `recipe.learning_rate`; batch.images / 32 is linear scaling
            (CNTK's BN-Inception; Goyal et al. 2017, arXiv 1706.02677).
    """

    images: int
    norm_group: int = 32
    synchronized: bool = True
    rate_factor: float = 1.0

    def __post_init__(self) -> None:
        for key in ("images", "norm_group"):
            why = ", which BN's statistics need (the paper: 32)"
            require_at_least(f"batch.{key}", getattr(self, key), 2, why)
        require_positive("batch.rate_factor", self.rate_factor)

    @property
    def mini_batch(self) -> int:
        """Images over which BN takes its statistics: a smaller batch is one group."""
        return min(self.norm_group, self.images)


@dataclass
class TrainConfig:
    """Lengths and spacings of a run (durations), the start check (too), the log interval (steps).

    Attributes:
        population_batches: training mini-batches for each evaluation's BN statistics (Algorithm 2).
        checkpoint_minutes: a checkpoint also this long after the last one; None for none. It
            changes nothing but what a fault can cost.
    """

    steps: Duration
    evaluate_every: Duration
    population_batches: int
    checkpoint_every: Duration
    start_check: Duration
    log_every: int
    checkpoint_minutes: float | None = 15.0

    def __post_init__(self) -> None:
        if self.checkpoint_minutes is not None:
            require_positive(
                "train.checkpoint_minutes", self.checkpoint_minutes, "null is for none"
            )
        for key in ("log_every", "population_batches"):
            require_at_least(f"train.{key}", getattr(self, key), 1)


@dataclass
class ProcessorConfig:
    """The device of every process, and its CPU threads; None is torch's default."""

    device: Device
    threads: int | None

    def __post_init__(self) -> None:
        require_at_least("machine.threads", self.threads, 1, "; null is automatic")


@dataclass
class MachineConfig(ProcessorConfig):
    """Where the computing of a training run happens, and how; never part of a recipe.

    A precision of None is what suits the device: `training.machine.resolve` decides.

    Attributes:
        timeout: seconds that a process waits for the others before the run ends.
        precision: number format of convolutions and products.
        compile: whether torch.compile makes one function of forward pass and loss; None, as
            earlier runs were saved, is false.
        deterministic: whether to ask for kernels that always give the same bits; the CPU's do.
    """

    timeout: float = 600.0
    precision: Precision | None = None
    compile: bool | None = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("machine.timeout", self.timeout, "give seconds")


@dataclass
class RunConfig:
    """Everything one training run is made from."""

    recipe: RecipeConfig
    scale: ScaleConfig
    run: RunSettings
    network: NetworkConfig
    optimizer: OptimizerConfig
    batch: BatchConfig
    order: OrderConfig
    augmentation: AugmentationConfig
    data: DataConfig
    train: TrainConfig
    machine: MachineConfig
    milestones: list[float] = field(default_factory=list)
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        milestones(self.milestones)
