"""Comparable runs, which of a statement's runs are missing, and the commands that make them."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bn_inception.paper.results import ENSEMBLE_MODELS
from bn_inception.paper.statements import Need, Statement
from bn_inception.quoting import shell_command
from bn_inception.record.summary import RunStatus
from bn_inception.report.curves import Curves
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.runs import Run


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their recipe and seed alone.

    Attributes:
        name: in words.
        overrides: `key=value` that all of them have set otherwise than their recipes, scale and
            data.
        runs: of the setting; of equal ones the most often evaluated.
        others: runs on the same scale and data with other overrides.
        ensembles: given evaluations of several networks.
    """

    name: str
    overrides: tuple[str, ...]
    runs: tuple[Run, ...]
    others: tuple[Run, ...] = ()
    ensembles: tuple[Evaluation, ...] = ()

    def all_of(self, need: Need) -> list[Run]:
        """Its runs, by seed, in whatever state."""
        wanted = set(self.overrides) | ({need.change} if need.change else set())
        pool = self.others if need.change else self.runs
        found = [
            run
            for run in pool
            if run.summary.recipe == need.recipe and set(run.overrides) == wanted
        ]
        return sorted(found, key=lambda run: run.summary.seed)

    def of(self, need: Need) -> list[Run]:
        """Its runs that are evidence: over, and as long as planned; by seed."""
        return [run for run in self.all_of(need) if run.ended and not run.cut_short]

    def curves(self, need: Need) -> Curves | None:
        """The curves of its runs; None where none has an evaluation or classes are unknown."""
        return curves_of(self.of(need))

    def missing(self, statement: Statement) -> tuple[list[str], list[str]]:
        """What a statement lacks here: reasons, and the commands that would make it."""
        reasons: list[str] = []
        commands: list[str] = []
        for need in statement.needs:
            self._add_missing(need, reasons, commands)
        ensemble = any(e.models == ENSEMBLE_MODELS and e.crops == 144 for e in self.ensembles)
        if statement.members and not ensemble:
            reasons.append("no evaluation of an ensemble of six networks with 144 crops was given")
            for need in statement.members:
                self._add_missing(need, [], commands)
            folders = map(self.folder, statement.members)
            commands.append(
                shell_command(["bn-inception", "ensemble", *folders, "output=ensemble.npz"])
            )
        return reasons, commands

    def _add_missing(self, need: Need, reasons: list[str], commands: list[str]) -> None:
        runs = self.of(need)
        if not runs:
            reasons.append(self._why_none(need))
            commands.append(self.train(need))
        kinds = {str(entry.crops) for run in runs for entry in run.own_evaluations}
        for crops in need.crops:
            if crops.replace("single", "1") not in kinds:
                name = runs[0].name if runs else str(need)
                crop = "a single crop" if crops == "single" else f"{crops} crops"
                reasons.append(f"{name} has no evaluation with {crop}")
                commands.append(_evaluate(self.folder(need), crops))

    def _why_none(self, need: Need) -> str:
        for run in self.all_of(need):
            if run.cut_short:
                planned = run.summary.planned_steps or run.summary.step
                return f"{run.name} is cut short: {planned:,} of {run.recipe_steps:,} steps"
            return f"{run.name} is not finished ({run.summary.status.value})"
        return f"no run of {need}"

    def train(self, need: Need, seed: int | None = None) -> str:
        """The command that makes, or finishes, a run."""
        for run in self.all_of(need):
            if not run.ended and seed is None:
                return _command(run, run.overrides, run.options, ("run.resume=true",))
        # Its data and options are those of a run that is there.
        model = self.runs[0]
        number = need.recipe.removeprefix("ensemble_")
        # The members of the ensemble have a seed each, so that their images differ in order too.
        first = int(number) if number != need.recipe else 0
        chosen = first if seed is None else seed
        extra = [need.change] if need.change else []
        if need.change:
            # Its folder must not be that of the run without the change.
            key, _, value = need.change.partition("=")
            said = key.rpartition(".")[2] + value
            extra.append(f"run.name={need.recipe}-{model.summary.scale}-{said}-seed{chosen}")
        if chosen:
            extra.append(f"run.seed={chosen}")
        options = [
            word for word in model.options if not word.startswith(("run.name=", "run.seed="))
        ]
        summary = replace(model.summary, recipe=need.recipe)
        overrides = self.overrides
        if any(run.cut_short for run in self.runs):
            overrides = tuple(word for word in overrides if not word.startswith("train.steps="))
        return _command(replace(model, summary=summary), overrides, options, extra)

    def another_seed(self, statement: Statement) -> list[str]:
        """The commands of one more seed of all that a statement needs."""
        runs = [run for need in statement.needs for run in self.all_of(need)]
        seed = 1 + max((run.summary.seed for run in runs), default=-1)
        commands = [self.train(need, seed) for need in statement.needs]
        for need in statement.needs:
            folder = self.folder(need, seed)
            commands += [_evaluate(folder, kind) for kind in need.crops]
        return commands

    def folder(self, need: Need, seed: int | None = None) -> str:
        """Where its first run is, or where its command puts it."""
        runs = self.of(need)
        if runs and seed is None:
            return str(runs[0].path)
        words = shlex.split(self.train(need, seed))
        at = dict(word.partition("=")[::2] for word in words if "=" in word)
        summary = self.runs[0].summary
        usual = f"{need.recipe}-{summary.scale}-{summary.data}-seed{at.get('run.seed', 0)}"
        return str(self.runs[0].path.parent / at.get("run.name", usual))


def _command(
    run: Run, overrides: Iterable[str], options: Iterable[str], extra: Sequence[str]
) -> str:
    """A training command; `extra` takes the place of overrides and options of the same key.

    Overrides and options are quoted for the shell already, `extra` is not.
    """
    summary = run.summary
    given = {word.partition("=")[0] for word in extra}
    words = [
        f"recipe={summary.recipe.replace('ensemble_', 'ensemble/')}",
        f"scale={summary.scale}",
        *([f"data={summary.data}"] if summary.data else []),
    ]
    kept = (word for word in (*overrides, *options) if word.partition("=")[0] not in given)
    return " ".join(
        [shell_command(["bn-inception", "train", *words]), *kept, shell_command(extra)]
    ).strip()


def _evaluate(folder: str, crops: str) -> str:
    return shell_command(["bn-inception", "evaluate", f"run={folder}", f"crops={crops}"])


def curves_of(runs: Sequence[Run]) -> Curves | None:
    """The curves of runs of one recipe and setting, at the steps at which all were evaluated.

    A run that diverged is at chance at every step that it did not come to.

    Returns:
        None where no run has an evaluation, or classes are unknown.
    """
    whole = [run for run in runs if run.summary.status is not RunStatus.diverged] or list(runs)
    steps = sorted(set.intersection(*(set(run.steps) for run in whole))) if whole else []
    classes = runs[0].summary.classes if runs else None
    if not steps or not classes:
        return None
    ordered = sorted(runs, key=lambda run: run.summary.seed)
    values = [dict(zip(run.steps, run.top1, strict=True)) for run in ordered]
    return Curves(
        seeds=tuple(run.summary.seed for run in ordered),
        steps=np.array(steps),
        top1=np.array([[known.get(step, 1 / classes) for step in steps] for known in values]),
        count=min(run.validation_count for run in whole),
        chance=1 / classes,
    )


def distinct_seeds(runs: Sequence[Run]) -> list[Run]:
    """Of runs that differ in no setting and not in their seed, keep the most often evaluated one.

    Equal seeds give equal runs: to count them twice would make the spread look smaller.
    """
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        key = (run.group, run.summary.seed)
        if key not in kept or (run.ended, len(run.steps)) > (
            kept[key].ended,
            len(kept[key].steps),
        ):
            kept[key] = run
    return list(kept.values())


def find_settings(runs: Sequence[Run], ensembles: Sequence[Evaluation] = ()) -> list[Setting]:
    """The settings, the one nearest to the paper first: its longest run, then the least changed."""
    runs = distinct_seeds(runs)
    found: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        found.setdefault((run.setting, run.overrides, run.unknown), []).append(run)
    settings = []
    for members in sorted(found.values(), key=_distance):
        first = members[0]
        others = [run for run in runs if run.setting == first.setting and run not in members]
        known = [run for run in others if run.unknown == first.unknown]
        settings.append(
            Setting(_name(first), first.overrides, tuple(members), tuple(known), tuple(ensembles))
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
    return " ".join([*words, *(["(changed while it ran)"] if run.changed else [])])
