"""Runs and saved evaluations, as their folders and files tell them."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from bn_inception.errors import UserError
from bn_inception.fields import Fields, Fraction, parse_object, read_object
from bn_inception.paper.results import MINI_BATCH
from bn_inception.quoting import printable, shortened
from bn_inception.record.environment import read_environment
from bn_inception.record.metrics import ProbeRecord, TrainRecord, ValidationRecord, read_metrics
from bn_inception.record.run_folder import refuse_links
from bn_inception.record.summary import RunStatus, Summary, read_summary
from bn_inception.table import NOTHING, Table

T = TypeVar("T")
_OF_EVALUATIONS = "give what bn-inception evaluate or ensemble has written"


@dataclass(frozen=True)
class Evaluation:
    """One saved evaluation.

    Attributes:
        path: of the file.
        crops: of each image: `single`, `10` or `144`.
        statistics: of Batch Normalization: `running` or `population`; None where not said.
        models: networks averaged.
        count: images. Errors are fractions of it, with their 95 % intervals.
        image_size: S in pixels of a crop; None where not said.
        accuracy_by_crops: rows (crops averaged, top-1, top-5); None where not said.
        data: fingerprint of the images; None where not said.
        step: of the checkpoint; None where not said, and of ensembles.
    """

    path: Path
    crops: str
    statistics: str | None
    models: int
    count: int
    top1_error: Fraction
    top5_error: Fraction
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    image_size: int | None = None
    accuracy_by_crops: list[tuple[int, Fraction, Fraction]] | None = None
    data: str | None = None
    step: int | None = None

    def like(self, other: "Evaluation") -> bool:
        """Whether the same images were seen in the same way, by whatever networks."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("crops", "statistics", "count", "image_size", "data")
        )

    @property
    def says(self) -> str:
        """Networks, crops, errors and images."""
        low, high = self.top5_interval
        networks = "1 network" if self.models == 1 else f"{self.models} networks"
        crops = "1 crop" if self.crops == "single" else f"{self.crops} crops"
        return (
            f"{networks}, {crops}: top-1 error {100 * self.top1_error:.2f} %, top-5 error "
            f"{100 * self.top5_error:.2f} % ({100 * low:.2f} to {100 * high:.2f}), "
            f"{self.count:,} images"
        )


def read_evaluation(path: str | Path) -> Evaluation:
    """Read an evaluation, of a network or of an ensemble; UserError where it is none."""
    path = Path(path)
    return _evaluation(path, read_object(path, _OF_EVALUATIONS))


def read_evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """Read every evaluation below `folder`, by path; other JSON files there are passed over."""
    files = [(path, read_object(path, _OF_EVALUATIONS)) for path in sorted(folder.rglob("*.json"))]
    return tuple(
        _evaluation(path, fields) for path, fields in files if "top5_error" in fields.values
    )


def _evaluation(path: Path, fields: Fields) -> Evaluation:
    images = fields.get("data", Fields | None)
    data = None if images is None else images.get("fingerprint", str | None)
    checkpoint = fields.get("checkpoint", Fields | None)
    step = None if checkpoint is None else checkpoint.get("step", int | None)
    return fields.as_(Evaluation, path=path, data=data, step=step)


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    The last five say how it differs from its recipe, scale and data as they are committed; they are
    left empty by `read_run`, which knows no configurations.

    Attributes:
        steps: evaluated steps, ascending, in image-equivalent steps (images seen / 32).
        top1: validation accuracy at `steps`, fractions.
        data_fingerprint: of the data set trained on; None where the folder does not say.
        validation_count: held-out images of the last evaluation; 0 before it.
        training: (step, top-1 fraction) of each training interval that says it, steps as above.
        overrides: `key=value`, sorted, that make it another experiment.
        config: every key of its configuration with its value, without paths.
        options: further `key=value` it was started with, such as `data.root`.
        unknown: why it cannot be told what was run, a clause each.
        recipe_steps: the length of its recipe at its scale, in its own steps; None where unknown.
    """

    name: str
    path: Path
    summary: Summary
    steps: tuple[float, ...]
    top1: tuple[float, ...]
    data_fingerprint: str | None = None
    validation_count: int = 0
    training: tuple[tuple[float, float], ...] = ()
    probes: tuple[ProbeRecord, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    recipe_steps: int | None = None

    @property
    def setting(self) -> tuple[str | int | None, ...]:
        """Scale, data, classes, data fingerprint and number format: comparable runs share them."""
        summary = self.summary
        machine = self.environment.get("machine")
        precision = machine.get("precision") if isinstance(machine, Mapping) else None
        data = (summary.data, summary.classes, self.data_fingerprint)
        return (summary.scale, *data, str(precision or "fp32"))

    @property
    def group(self) -> tuple[object, ...]:
        """What it shares with the other seeds of the same experiment."""
        return self.summary.recipe, self.setting, self.overrides, self.unknown

    @property
    def ended(self) -> bool:
        """Whether the run is over: finished or diverged, neither going on nor interrupted."""
        return self.summary.status in (RunStatus.finished, RunStatus.diverged)

    @property
    def cut_short(self) -> bool:
        """Whether it was planned shorter than its recipe is at its scale."""
        planned = self.summary.planned_steps or self.summary.step
        return self.recipe_steps is not None and planned < self.recipe_steps

    @property
    def own_evaluations(self) -> list[Evaluation]:
        """Those of its best checkpoint alone, on the images that it was watched on."""
        alone = [e for e in self.evaluations if e.models == 1 and e.count == self.validation_count]
        best = self.summary.best
        return [e for e in alone if e.step is None or best is None or e.step == best.step]


def read_run(path: str | Path) -> Run:
    """Read a run folder; the run may be going on.

    What is no run folder, or is broken, is a UserError that names what is missing.
    """
    path = Path(path)
    refuse_links(path)
    summary = read_summary(path / "summary.json")
    records = read_metrics(path / "metrics.jsonl")
    validations = [record for record in records if isinstance(record, ValidationRecord)]
    trainings = [record for record in records if isinstance(record, TrainRecord)]
    described = path / "environment.json"
    environment = read_environment(described) if described.is_file() else {}
    return Run(
        name=path.resolve().name,
        path=path,
        summary=summary,
        steps=tuple(record.equivalent_steps for record in validations),
        top1=tuple(record.top1 for record in validations),
        data_fingerprint=Fields(environment, str(described)).get("data_fingerprint", str | None),
        validation_count=validations[-1].count if validations else 0,
        training=tuple((r.equivalent_steps, r.top1) for r in trainings if r.top1 is not None),
        probes=tuple(record for record in records if isinstance(record, ProbeRecord)),
        evaluations=read_evaluations(path / "evaluation"),
        environment=environment,
    )


def read_runs(paths: Iterable[str | Path]) -> list[Run]:
    """`read_run` of each folder, in order; UserError for none, and for one given twice."""
    runs = [read_run(path) for path in paths]
    if not runs:
        raise UserError("no run folder given; give one or more, such as outputs/<run.name>")
    folders = [run.path.resolve() for run in runs]
    for number, run in enumerate(runs):
        if folders[number] in folders[:number]:
            raise UserError(f"{run.path}: given twice; give each run folder once")
    return runs


def distinct_seeds(runs: Sequence[Run]) -> list[Run]:
    """Of runs that differ in no setting and not in their seed one: over, and most often evaluated.

    Equal seeds give equal runs: to count them twice would make the spread look smaller.
    """
    return [
        max(same, key=lambda run: (run.ended, len(run.steps)))
        for same in grouped(runs, lambda run: (run.group, run.summary.seed))
    ]


def grouped(items: Iterable[T], key: Callable[[T], object]) -> list[list[T]]:
    """Items of equal `key` together, in the order in which the keys are first met."""
    groups: dict[object, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


SILENT_AFTER = 15 * 60.0
"""Seconds; an evaluation of 50,000 images may take minutes."""
_TAIL = 1 << 14
"""Bytes at the end of a record that are looked at."""
_HEADER = ("run", "state", "step/planned", "best", "images", "ends")


def progress(root: Path) -> Table:
    """Every run below a folder, or the one run that it is, by name.

    It says a run's status, or for how many hours and minutes one that says that it runs has been
    silent: it was killed, or hangs. Images are those trained on a second, of the last interval
    while it runs; the end is by the speed of its steps alone, so that evaluations come on top.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of your runs, such as outputs")
    folders = [root] if (root / "summary.json").is_file() else sorted(root.iterdir())
    rows = [_row(folder) for folder in folders if (folder / "summary.json").is_file()]
    if not rows:
        raise UserError(f"{root}: no run in it; give the folder of your runs")
    _, *others = zip(_HEADER, *rows, strict=True)
    # A name has what the other columns leave of the terminal.
    left = shutil.get_terminal_size().columns - sum(2 + max(map(len, cells)) for cells in others)
    return Table(_HEADER, [(shortened(name, left), *cells) for name, *cells in rows], (2, 3, 4))


def _row(folder: Path) -> tuple[str, ...]:
    summary = read_summary(folder / "summary.json")
    step, planned, speed = summary.step, summary.planned_steps, summary.images_per_second
    state, ends = summary.status.value, ""
    if summary.status is RunStatus.running:
        # Newer than the summary, which is written where the run is saved.
        written, last_step, last_speed, images = _last_training(folder / "metrics.jsonl")
        step, speed = max(step, last_step), last_speed or speed
        silent = 0.0 if written is None else time.time() - written
        if silent > SILENT_AFTER:
            state = f"silent {int(silent) // 3600}:{int(silent) // 60 % 60:02}"
        elif written is not None and planned is not None and speed:
            left = (planned - step) * images / speed
            end = datetime.fromtimestamp(max(time.time(), written + left))
            ends = f"{end:%d %b %H:%M}"
    return (
        printable(folder.resolve().name),
        state,
        f"{_short(step)}/{'?' if planned is None else _short(planned)}",
        NOTHING if summary.best is None else f"{100 * summary.best.top1:.1f} %",
        f"{speed:,.0f}/s" if speed else NOTHING,
        ends,
    )


def _short(steps: int) -> str:
    return f"{steps:,}" if steps < 1_000_000 else f"{steps / 1e6:.2f}M"


def _last_training(metrics: Path) -> tuple[float | None, int, float, float]:
    """When a record was last written to; the last interval's step, images/s, images an update."""
    try:
        with metrics.open("rb") as file:
            written = os.fstat(file.fileno()).st_mtime
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None, 0, 0.0, MINI_BATCH
    for line in reversed(lines):
        try:
            fields = parse_object(line.decode("utf-8", "replace"), str(metrics), "")
            if fields.get("kind", str) == "train":
                speed = fields.get("images_per_second", float | None) or 0.0
                step, equivalent = fields.get("step", int), fields.get("equivalent_steps", float)
                return written, step, speed, MINI_BATCH * equivalent / max(1, step)
        except UserError:
            # The first line is cut, and the last one may be under way.
            continue
    return written, 0, 0.0, MINI_BATCH
