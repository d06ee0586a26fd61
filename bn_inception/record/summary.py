"""`summary.json`: what a run has come to, in one small file."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from bn_inception.errors import UserError
from bn_inception.fields import Fraction, read_object
from bn_inception.files import write_json
from bn_inception.paper.results import MINI_BATCH


class RunStatus(Enum):
    """How a run stands. A killed process leaves `running` behind."""

    running = "running"
    finished = "finished"
    interrupted = "interrupted"
    diverged = "diverged"


@dataclass(frozen=True)
class Best:
    """The highest validation accuracy (fraction) and the first step that had it."""

    top1: Fraction
    step: int


@dataclass(frozen=True)
class Divergence:
    """The update whose loss or parameters were not finite, and the first layer that was not."""

    step: int
    layer: str


@dataclass
class Milestone:
    """The first evaluated `step` at or above a `target` accuracy, a fraction in (0, 1].

    The true step lies in (previous_step, step]; both are None until there is one. It is the
    quantity of BN Figure 3.
    """

    target: Fraction
    step: int | None = None
    previous_step: int | None = None


def milestones(targets: Iterable[float]) -> list[Milestone]:
    """Milestones that nothing has met yet, ascending; UserError for a target that is none."""
    ordered = sorted(targets)
    for target in ordered:
        if not 0 < target <= 1:
            raise UserError(
                f"milestones: {target} is not a fraction in (0, 1]; 72.2 % is written 0.722"
            )
        if ordered.count(target) > 1:
            raise UserError(f"milestones: {target} is given twice; give each target once")
    return [Milestone(float(target)) for target in ordered]


@dataclass
class Summary:
    """The content of `summary.json`.

    Attributes:
        step: updates done when this was written; a run is finished after `planned_steps`.
        images_seen: training images up to `step`, each time it was seen.
        started_learning: false while the loss stands within a hair of ln(classes) although the
            run is long enough to judge.
        images_per_second: training throughput over the whole run, evaluation and stops excluded.
        wall_seconds: time spent in the run's processes, all of its sessions together.
        replaced_images: training images that could not be read and were replaced, name -> reason.
        unreadable_validation_images: at the last evaluation; each counts as an error.
    """

    recipe: str
    scale: str
    seed: int
    data: str | None = None
    classes: int | None = None
    parameters: int | None = None
    planned_steps: int | None = None
    status: RunStatus = RunStatus.running
    step: int = 0
    images_seen: int = 0
    best: Best | None = None
    milestones: list[Milestone] = field(default_factory=list)
    diverged: Divergence | None = None
    started_learning: bool = True
    images_per_second: float = 0.0
    wall_seconds: float = 0.0
    replaced_images: dict[str, str] = field(default_factory=dict)
    unreadable_validation_images: int = 0

    def observe(self, step: int, top1: float, previous_step: int) -> bool:
        """Take note of an evaluation, and of the one before it; return whether it is a new best.

        The first of equal accuracies is the best.
        """
        for milestone in self.milestones:
            if milestone.step is None and top1 >= milestone.target:
                milestone.step, milestone.previous_step = step, previous_step
        is_best = self.best is None or top1 > self.best.top1
        if is_best:
            self.best = Best(top1, step)
        return is_best

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `write` writes."""
        more = {"status": self.status.value, "equivalent_steps": self.images_seen / MINI_BATCH}
        return {**asdict(self), **more}

    def write(self, path: Path) -> None:
        """Replace `path` atomically."""
        write_json(path, self.as_dict())


def read_summary(path: Path) -> Summary:
    """Read a `summary.json`; UserError where it is not what `Summary.write` writes."""
    return read_object(path, "give a run folder that training has written").as_(Summary)
