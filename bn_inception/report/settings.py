"""Comparable runs, and which of them a statement needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bn_inception.report.evaluations import Evaluation, StabilityEdge
from bn_inception.report.runs import Run
from bn_inception.report.target import Target, target_by


@dataclass(frozen=True)
class Need:
    """Runs that a statement needs, of at least one seed.

    `change` is `key=value` set otherwise than in the recipe; `crops` are evaluations that must lie
    in the run's folder.
    """

    recipe: str
    change: str = ""
    crops: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.recipe} with {self.change}" if self.change else self.recipe


PLAIN = Need("inception")


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their recipe and seed alone, and what was given beside them.

    Attributes:
        overrides: `key=value` that all of them have set otherwise than their recipes, scale and
            data.
        runs: of the setting; of equal ones the most often evaluated.
        others: runs on the same scale and data with other overrides.
        ensembles: evaluations of several networks.
        edges: at the setting's scale.
        differences: see `judge`.
    """

    name: str
    overrides: tuple[str, ...]
    runs: tuple[Run, ...]
    others: tuple[Run, ...] = ()
    ensembles: tuple[Evaluation, ...] = ()
    edges: tuple[StabilityEdge, ...] = ()
    differences: tuple[float, float] | None = None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Why it cannot be told what was run."""
        return self.runs[0].unknown if self.runs else ()

    @cached_property
    def target(self) -> Target:
        """What its plain runs set."""
        return target_by(self.of(PLAIN))

    def all_of(self, need: Need) -> list[Run]:
        """Its runs, by seed, in whatever state."""
        wanted = set(self.overrides) | ({need.change} if need.change else set())
        found = [
            run
            for run in (self.others if need.change else self.runs)
            if run.summary.recipe == need.recipe and set(run.overrides) == wanted
        ]
        return sorted(found, key=lambda run: run.summary.seed)

    def of(self, need: Need) -> list[Run]:
        """Its runs that are evidence: over, and as long as planned; by seed."""
        return [run for run in self.all_of(need) if run.ended and not run.cut_short]


def distinct_seeds(runs: Sequence[Run]) -> list[Run]:
    """Of runs that differ in no setting and not in their seed the most often evaluated one.

    Equal seeds give equal runs: to count them twice would make the spread look smaller.
    """
    kept: dict[object, Run] = {}
    for run in runs:
        key = (run.group, run.summary.seed)
        if key not in kept or _evaluated(run) > _evaluated(kept[key]):
            kept[key] = run
    return list(kept.values())


def _evaluated(run: Run) -> tuple[bool, int]:
    # Of two runs of a seed the one to keep is over, and has most evaluations.
    return run.ended, len(run.steps)


def find_settings(
    runs: Sequence[Run],
    ensembles: Sequence[Evaluation] = (),
    edges: Sequence[StabilityEdge] = (),
) -> list[Setting]:
    """The settings, the one nearest to the paper first: its longest run, then the least changed."""
    runs = distinct_seeds(runs)
    found: dict[object, list[Run]] = {}
    for run in runs:
        found.setdefault(run.group[1:], []).append(run)
    settings = []
    for members in sorted(found.values(), key=_distance):
        first = members[0]
        alike = [r for r in runs if (r.setting, r.unknown) == (first.setting, first.unknown)]
        others = tuple(run for run in alike if run.overrides != first.overrides)
        name, own = _name(first), tuple(e for e in edges if e.scale == first.summary.scale)
        settings.append(
            Setting(name, first.overrides, tuple(members), others, tuple(ensembles), own)
        )
    return settings


def _distance(runs: Sequence[Run]) -> tuple[float, int, int]:
    first = runs[0]
    longest = max(run.recipe_steps or run.summary.planned_steps or 0 for run in runs)
    return -longest, len(first.overrides) + len(first.unknown), -len(runs)


def _name(run: Run) -> str:
    summary = run.summary
    words = [f"scale={summary.scale}", *([f"data={summary.data}"] if summary.data else [])]
    words += run.overrides
    if summary.classes is not None:
        words.append(f"{summary.classes} classes")
    return " ".join(words)
