"""A run as its folder tells it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.paper.results import MINI_BATCH
from bn_inception.record.fields import read_object
from bn_inception.record.metrics import ValidationRecord, read_metrics
from bn_inception.record.summary import Summary, read_summary


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        name: the folder's name.
        path: the folder as given.
        summary: `summary.json`.
        steps: evaluated steps, ascending, in image-equivalent steps (images seen / 32), which are
            the run's own steps where its mini-batch is 32.
        top1: validation accuracy at `steps`, fractions.
        data_fingerprint: of the data set trained on; None where the folder does not say.
    """

    name: str
    path: Path
    summary: Summary
    steps: tuple[float, ...]
    top1: tuple[float, ...]
    data_fingerprint: str | None = None

    @property
    def maximum_top1(self) -> float | None:
        """The highest validation accuracy; None before the first evaluation."""
        return max(self.top1, default=None)

    @property
    def maximum_step(self) -> float | None:
        """The first step that had it."""
        return None if not self.top1 else self.steps[self.top1.index(max(self.top1))]

    def reaches(self, target: float) -> tuple[float, float] | None:
        """When the run first met a top-1 accuracy.

        Returns:
            The first evaluated step at or above `target` and the evaluated step before it (0 if
            there is none), so that the true step lies between them; None if it never did.
        """
        previous = 0.0
        for step, top1 in zip(self.steps, self.top1, strict=True):
            if top1 >= target:
                return step, previous
            previous = step
        return None


def read_run(path: str | Path) -> Run:
    """Read a run folder; the run may be going on.

    Raises:
        UserError: not a run folder (what is missing is named), or a broken file in it.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give run folders such as outputs/<run.name>")
    missing = [name for name in ("summary.json", "metrics.jsonl") if not (path / name).is_file()]
    if missing:
        raise UserError(
            f"{path}: not a run folder ({' and '.join(missing)} missing); "
            "give run folders such as outputs/<run.name>"
        )
    summary = read_summary(path / "summary.json")
    records = read_metrics(path / "metrics.jsonl")
    validations = [record for record in records if isinstance(record, ValidationRecord)]
    # Lines that do not say how many images they stand for: the summary does, for the whole run.
    equivalent = summary.images_seen / summary.step / MINI_BATCH if summary.step else 1.0
    return Run(
        name=path.resolve().name,
        path=path,
        summary=summary,
        steps=tuple(
            record.step * equivalent if record.equivalent_steps is None else record.equivalent_steps
            for record in validations
        ),
        top1=tuple(record.top1 for record in validations),
        data_fingerprint=_data_fingerprint(path / "environment.json"),
    )


def read_runs(paths: Iterable[str | Path]) -> list[Run]:
    """`read_run` of each folder, in order.

    Raises:
        UserError: no folder, or one given twice.
    """
    runs = [read_run(path) for path in paths]
    if not runs:
        raise UserError("no run folder given; give one or more, such as outputs/<run.name>")
    seen: set[Path] = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise UserError(f"{run.path}: given twice; give each run folder once")
        seen.add(run.path.resolve())
    return runs


def _data_fingerprint(path: Path) -> str | None:
    if not path.is_file():
        return None
    environment = read_object(path, "restore it from a copy, or delete it")
    return environment.optional_text("data_fingerprint")
