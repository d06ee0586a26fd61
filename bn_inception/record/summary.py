"""`summary.json`: what a run has come to, in one small file."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from bn_inception.fields import FRACTION, read_object
from bn_inception.files import write_json
from bn_inception.paper.results import MINI_BATCH
from bn_inception.record.milestones import Milestone


class RunStatus(Enum):
    """How a run stands. A killed process leaves `running` behind."""

    running = "running"
    finished = "finished"
    interrupted = "interrupted"
    diverged = "diverged"


@dataclass(frozen=True)
class Best:
    """The highest validation accuracy (fraction) and the first step that had it."""

    top1: float = field(metadata={FRACTION: True})
    step: int


@dataclass(frozen=True)
class Divergence:
    """The update whose loss or parameters were not finite, and the first layer that was not."""

    step: int
    layer: str


@dataclass
class Summary:
    """The content of `summary.json`.

    Attributes:
        recipe, scale, seed: what was run.
        data: name of the data set; None where unknown.
        classes, parameters: size of the network's task, and its trained parameters.
        planned_steps: updates after which the run is finished.
        status: see RunStatus.
        step: updates done when this was written.
        images_seen: training images up to `step`, each time it was seen.
        best: None before the first evaluation.
        milestones: by ascending target.
        diverged: None unless status is diverged.
        started_learning: false while the loss stands within a hair of ln(classes) although the
            run is long enough to judge; true before that.
        images_per_second: training throughput over the whole run, evaluation and stops excluded.
        wall_seconds: time spent in the run's processes, all of its sessions together.
        replaced_images: training images that could not be read and were replaced, name -> reason.
        unreadable_validation_images: held-out images that could not be read at the last
            evaluation; each counts as an error.
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

    @property
    def equivalent_steps(self) -> float:
        """Image-equivalent steps: `images_seen` in mini-batches of the paper's 32."""
        return self.images_seen / MINI_BATCH

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `write` writes."""
        more = {"status": self.status.value, "equivalent_steps": self.equivalent_steps}
        return {**asdict(self), **more}

    def write(self, path: Path) -> None:
        """Replace `path` atomically."""
        write_json(path, self.as_dict())


def read_summary(path: Path) -> Summary:
    """Read a `summary.json`; the inverse of `Summary.write`.

    Raises:
        UserError: missing file, broken JSON, a missing key, or a value of another type.
    """
    return read_object(path, "give a run folder that training has written").as_(Summary)
