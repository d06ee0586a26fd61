"""What judging a statement works with: comparable runs, findings, and commands."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bn_inception.paper.results import MINI_BATCH
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.runs import Run
from bn_inception.report.seeds import Difference, distinct_seeds


class Outcome(StrEnum):
    """What became of a statement."""

    holds = "holds"
    does_not_hold = "does not hold"
    not_tested = "not tested"


@dataclass(frozen=True)
class Evidence:
    """What one run, or one file, says.

    Attributes:
        name: of the run or file.
        path: where it is.
        says: the numbers.
    """

    name: str
    path: str
    says: str


@dataclass(frozen=True)
class Finding:
    """`holds` is None where the evidence does not decide; `commands` is what would."""

    holds: bool | None
    reason: str
    evidence: tuple[Evidence, ...] = ()
    commands: tuple[str, ...] = ()


def both(*findings: Finding) -> Finding:
    """All must hold; one that does not decides."""
    evidence: dict[tuple[str, str], Evidence] = {}
    for entry in (entry for finding in findings for entry in finding.evidence):
        known = evidence.get((entry.name, entry.path))
        # Of one run, what says more.
        if known is None or len(entry.says) > len(known.says):
            evidence[entry.name, entry.path] = entry
    holds: bool | None = True
    if any(finding.holds is False for finding in findings):
        holds = False
    elif any(finding.holds is None for finding in findings):
        holds = None
    return Finding(
        holds,
        "; ".join(dict.fromkeys(finding.reason for finding in findings)),
        tuple(evidence.values()),
        tuple(
            command for finding in findings if finding.holds is None for command in finding.commands
        ),
    )


@dataclass(frozen=True)
class Setting:
    """Comparable runs.

    Attributes:
        name: in words.
        runs: those whose overrides are the setting's.
        others: runs of the same scale and data with other overrides.
        ensembles: given evaluations of several networks.
    """

    name: str
    overrides: tuple[str, ...]
    runs: tuple[Run, ...]
    others: tuple[Run, ...]
    ensembles: tuple[Evaluation, ...]

    def ended(self, recipe: str) -> list[Run]:
        """The runs of `recipe` that finished or diverged."""
        return [run for run in self.runs if run.summary.recipe == recipe and run.ended]

    def train(self, recipe: str, *extra: str) -> str:
        """The command that makes, or finishes, the run of `recipe` that is missing here."""
        for run in self.runs:
            if run.summary.recipe == recipe and not run.ended and not extra:
                return command(run, run.overrides, ("run.resume=true",))
        # Its data and options are those of a run that is there.
        model = self.runs[0]
        summary = replace(model.summary, recipe=recipe, seed=_first_seed(recipe))
        model = replace(model, summary=summary)
        return command(model, self.overrides, extra, new=True)

    def another_seed(self, recipe: str) -> str:
        """The command of one more run of `recipe`, with the lowest seed that has none yet."""
        seeds = {run.summary.seed for run in self.runs if run.summary.recipe == recipe}
        unused = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
        return self.train(recipe, f"run.seed={unused}")

    def folder(self, recipe: str) -> str:
        """Where the run of `recipe` is, or where its command puts it."""
        run = next(iter(self.ended(recipe)), None)
        if run is not None:
            return str(run.path)
        summary = self.runs[0].summary
        name = f"{recipe}-{summary.scale}-{summary.data}-seed{_first_seed(recipe)}"
        return str(self.runs[0].path.parent / name)

    def more_often(self, recipe: str) -> str:
        """The same run, evaluated ten times as often."""
        run = self.ended(recipe)[0]
        own_steps = MINI_BATCH * run.summary.step / max(1, run.summary.images_seen)
        every = max(1, math.floor(min(spacings(run)) * own_steps / 10))
        name = f"{run.name}-every{every}"
        return command(
            run, run.overrides, (f"train.evaluate_every={every}", f"run.name={name}"), new=True
        )


def command(run: Run, overrides: Iterable[str], extra: Sequence[str], new: bool = False) -> str:
    """The command line of a training run.

    Args:
        run: gives recipe, scale, data and options.
        overrides: `key=value` set otherwise than in its recipe.
        extra: further `key=value`, which take the place of options and overrides of the same key.
        new: whether it is another run than `run`, with a name and a seed of its own.
    """
    summary = run.summary
    given = {word.partition("=")[0] for word in extra}
    words = [
        f"recipe={summary.recipe.replace('ensemble_', 'ensemble/')}",
        f"scale={summary.scale}",
        *([f"data={summary.data}"] if summary.data else []),
        *overrides,
        *(
            word
            for word in run.options
            if not (new and word.startswith(("run.name=", "run.seed=")))
        ),
    ]
    words = [word for word in words if word.partition("=")[0] not in given]
    if "run.seed" not in given and summary.seed and new:
        words.append(f"run.seed={summary.seed}")
    return " ".join(["bn-inception train", *words, *extra])


def _first_seed(recipe: str) -> int:
    # The members of the ensemble have a seed each, so that their images come in another order too.
    member = recipe.removeprefix("ensemble_")
    return int(member) if member != recipe and member.isdecimal() else 0


def spacings(run: Run) -> list[float]:
    """Image-equivalent steps from each evaluation of `run` to the next, from step 0 on."""
    steps = (0.0, *run.steps)
    return [after - before for before, after in zip(steps, run.steps, strict=False)]


def find_settings(runs: Sequence[Run], ensembles: Sequence[Evaluation]) -> list[Setting]:
    """The settings, the one with most runs first."""
    runs = distinct_seeds(runs)
    found: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        found.setdefault((run.setting, run.overrides), []).append(run)
    settings = []
    for members in sorted(found.values(), key=len, reverse=True):
        first = members[0]
        scale, data, classes, _ = first.setting
        words = [f"scale={scale}", *([f"data={data}"] if data else []), *first.overrides]
        if classes is not None:
            words.append(f"{classes} classes")
        others = [
            run for run in runs if run.setting == first.setting and run.overrides != first.overrides
        ]
        settings.append(
            Setting(
                " ".join(words), first.overrides, tuple(members), tuple(others), tuple(ensembles)
            )
        )
    return settings


def missing(setting: Setting, recipes: Sequence[str]) -> Finding | None:
    """What to do first, where a recipe has no run that has ended."""
    absent = [recipe for recipe in recipes if not setting.ended(recipe)]
    if not absent:
        return None
    begun = [run for run in setting.runs if run.summary.recipe in absent and not run.ended]
    going_on = [f"{run.name} is not finished ({run.summary.status.value})" for run in begun]
    recipes_begun = {run.summary.recipe for run in begun}
    without = [f"no run of {recipe}" for recipe in absent if recipe not in recipes_begun]
    return Finding(
        None,
        "; ".join([*without, *going_on]),
        tuple(of_run(run) for recipe in recipes for run in setting.ended(recipe)),
        tuple(setting.train(recipe) for recipe in absent),
    )


def of_run(run: Run, says: str = "") -> Evidence:
    """A run as evidence: `says`, its maximum, and how it ended where that is not by finishing."""
    summary = run.summary
    parts = [says] if says else []
    if run.maximum_top1 is not None:
        parts.append(f"maximum {percent(run.maximum_top1)} at step {run.maximum_step:,.0f}")
    if summary.diverged is not None:
        parts.append(f"diverged at step {summary.diverged.step:,} in {summary.diverged.layer}")
    elif not summary.started_learning:
        parts.append("did not start learning")
    return Evidence(run.name, str(run.path), "; ".join(parts) or "no evaluation")


def percent(fraction: float) -> str:
    """0.722 as "72.2 %"."""
    return f"{100 * fraction:.1f} %"


def percent_points(fraction: float) -> str:
    """0.026 as "2.6 points"."""
    return f"{100 * fraction:.1f} points"


def points(difference: Difference) -> str:
    """A difference of fractions with its interval and where that comes from, in points."""
    return (
        f"{100 * difference.value:+.2f} points "
        f"({100 * difference.low:+.2f} to {100 * difference.high:+.2f}; {difference.source})"
    )
