"""Comparable runs, which of them a statement needs, and the commands that make what is missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from shlex import split

from bn_inception.paper.results import ENSEMBLE_MODELS
from bn_inception.quoting import shell_command
from bn_inception.record.run_folder import suffix
from bn_inception.report.curves import Target, target_by
from bn_inception.report.runs import Evaluation, Run, distinct_seeds, grouped

Words = tuple[str, ...]
"""Of a command, unquoted; the third of a training is its recipe."""


@dataclass(frozen=True)
class Need:
    """Runs that a statement needs, of at least one seed.

    `change` is `key=value` set otherwise than in the recipe; `crops` are evaluations it must have.
    """

    recipe: str
    change: str = ""
    crops: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.recipe} with {self.change}" if self.change else self.recipe


PLAIN = Need("inception")
_MEMBERS = [Need(f"ensemble_{n}", crops=("144",)) for n in range(1, ENSEMBLE_MODELS + 1)]


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their recipe and seed alone, and what was given beside them.

    `others` are runs on the same scale and data with other overrides. What is computed has no runs.
    """

    runs: tuple[Run, ...]
    others: tuple[Run, ...] = ()
    ensembles: tuple[Evaluation, ...] = ()
    differences: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """In words; empty for what is computed."""
        if not self.runs:
            return ""
        summary, overrides = self.runs[0].summary, self.runs[0].overrides
        words = [f"scale={summary.scale}", *([f"data={summary.data}"] if summary.data else [])]
        classes = [] if summary.classes is None else [f"{summary.classes} classes"]
        *_, images, precision = self.runs[0].setting
        rest = [] if precision == "fp32" else [str(precision)]
        rest += [] if images is None else [f"images {str(images)[:8]}"]
        return " ".join([*words, *overrides, *classes, *rest])

    @cached_property
    def target(self) -> Target:
        """What its plain runs set."""
        return target_by(self.of(PLAIN))

    def all_of(self, need: Need) -> list[Run]:
        """Its runs, by seed, in whatever state."""
        wanted = {*self.runs[0].overrides, *filter(None, [need.change])}
        found = [
            run
            for run in (self.others if need.change else self.runs)
            if run.summary.recipe == need.recipe and set(run.overrides) == wanted
        ]
        return sorted(found, key=lambda run: run.summary.seed)

    def of(self, need: Need) -> list[Run]:
        """Its runs that are evidence: over, and as long as planned; by seed."""
        return [run for run in self.all_of(need) if run.ended and not run.cut_short]

    def unfinished(self, need: Need) -> list[Run]:
        """Its runs that go on, or were interrupted."""
        return [run for run in self.all_of(need) if not run.ended]


def find_settings(runs: Sequence[Run], ensembles: Sequence[Evaluation] = ()) -> list[Setting]:
    """The settings, the one nearest to the paper first: its longest run, then the least changed."""
    runs = distinct_seeds(runs)
    settings = []
    for members in sorted(grouped(runs, lambda run: run.group[1:]), key=_distance):
        first = members[0]
        alike = [r for r in runs if (r.setting, r.unknown) == (first.setting, first.unknown)]
        others = [run for run in alike if run.overrides != first.overrides]
        settings.append(Setting(tuple(members), tuple(others), tuple(ensembles)))
    return settings


def _distance(runs: Sequence[Run]) -> tuple[float, int, int]:
    first = runs[0]
    longest = max(run.recipe_steps or run.summary.planned_steps or 0 for run in runs)
    return -longest, len(first.overrides) + len(first.unknown), -len(runs)


def missing(
    setting: Setting, needs: Iterable[Need], *, ensemble: bool = False
) -> tuple[list[str], list[Words]]:
    """What lacks of some needs, and of an evaluation of six networks with 144 crops.

    Reasons, and the commands that would make it.
    """
    reasons, commands = [], []
    for need in needs:
        runs = setting.of(need)
        if not runs:
            reasons.append(_why_none(setting, need))
            commands.append(_train(setting, need))
        kinds = {entry.crops for run in runs for entry in run.own_evaluations}
        for crops in need.crops:
            if crops not in kinds:
                crop = "a single crop" if crops == "single" else f"{crops} crops"
                reasons.append(f"{runs[0].name if runs else need} has no evaluation with {crop}")
                commands.append(_evaluate(_folder(setting, need), crops))
    if ensemble and not any(
        entry.models == ENSEMBLE_MODELS and entry.crops == "144" for entry in setting.ensembles
    ):
        reasons.append("no evaluation of an ensemble of six networks with 144 crops was given")
        commands += missing(setting, _MEMBERS)[1]
        folders = [_folder(setting, member) for member in _MEMBERS]
        commands.append(("bn-inception", "ensemble", *folders, "crops=144", "output=six.npz"))
    return reasons, commands


def another_seed(setting: Setting, needs: Sequence[Need]) -> list[Words]:
    """The commands of one more seed of all needs."""
    runs = [run for need in needs for run in setting.all_of(need)]
    seed = 1 + max((run.summary.seed for run in runs), default=-1)
    return [_train(setting, need, seed) for need in needs] + [
        _evaluate(_folder(setting, need, seed), crops) for need in needs for crops in need.crops
    ]


def _train(setting: Setting, need: Need, seed: int | None = None) -> Words:
    """The command that makes, or finishes, a run."""
    if seed is None:
        for run in setting.unfinished(need):
            return "bn-inception", "train", f"resume={run.path}"
        # The members of the ensemble have a seed each, so that their images differ in order too.
        number = need.recipe.removeprefix("ensemble_")
        seed = int(number) if number != need.recipe else 0
    short = any(run.cut_short and run.summary.seed == seed for run in setting.all_of(need))
    dropped = ["run.name", "run.seed", need.change.partition("=")[0]]
    # A run that was cut short is no model of the length.
    dropped += ["train.steps"] if any(run.cut_short for run in setting.runs) else []
    # Data and options are those of a run that is there.
    model = setting.runs[0]
    kept = [w for w in (*model.overrides, *model.options) if w.partition("=")[0] not in dropped]
    return (
        "bn-inception",
        "train",
        f"recipe={need.recipe.replace('ensemble_', 'ensemble/')}",
        f"scale={model.summary.scale}",
        *([f"data={model.summary.data}"] if model.summary.data else []),
        # These are quoted.
        *(part for word in kept for part in split(word)),
        *filter(None, [need.change]),
        *([f"run.seed={seed}"] if seed else []),
        *(["run.root=whole"] if short else []),  # the short run keeps its folder
    )


def _why_none(setting: Setting, need: Need) -> str:
    for run in setting.all_of(need)[:1]:
        if not run.cut_short:
            return f"{run.name} is not finished ({run.summary.status.value})"
        planned = run.summary.planned_steps or run.summary.step
        return f"{run.name} is cut short: {planned:,} of {run.recipe_steps:,} steps"
    return f"no run of {need}"


def _folder(setting: Setting, need: Need, seed: int | None = None) -> str:
    """Where its first run is, or where its command puts it."""
    if seed is None and (runs := setting.of(need) or setting.unfinished(need)):
        return str(runs[0].path)
    words = _train(setting, need, seed)[2:]
    given = dict(word.partition("=")[::2] for word in words)
    first = setting.runs[0]
    changed = suffix(w for w in words if not w.startswith(("recipe=", "scale=", "data=")))
    usual = f"{need.recipe}-{first.summary.scale}-{first.summary.data}"
    root = given.get("run.root", str(first.path.parent))
    return f"{root}/{usual}-seed{given.get('run.seed', 0)}{changed}"


def _evaluate(folder: str, crops: str) -> Words:
    return "bn-inception", "evaluate", f"run={folder}", f"crops={crops}"


def for_copying(commands: Iterable[Words]) -> tuple[str, ...]:
    """Each once, quoted; trainings that differ in their recipe alone are one `train -m`."""
    made = []
    for first, *others in grouped(dict.fromkeys(commands), _apart_from_recipe):
        recipes = [word.removeprefix("recipe=") for _, _, word, *_ in others]
        many = ("-m", ",".join([first[2], *recipes])) if others else first[2:3]
        made.append(shell_command([*first[:2], *many, *first[3:]]))
    return tuple(made)


def _apart_from_recipe(command: Words) -> Words:
    # `train -m` reads a comma outside a list as one between several values.
    commas = any("," in word and "=[" not in word for word in command)
    sweeps = command[2].startswith("recipe=") and not commas
    return (*command[:2], *command[3:]) if sweeps else command
