"""What a statement lacks in a setting, and the commands that would make it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from shlex import split

from bn_inception.paper.results import ENSEMBLE_MODELS
from bn_inception.quoting import shell_command
from bn_inception.record.naming import suffix
from bn_inception.report.runs import Run
from bn_inception.report.settings import Need, Setting

_MEMBERS = tuple(
    Need(f"ensemble_{member}", crops=("144",)) for member in range(1, ENSEMBLE_MODELS + 1)
)


@dataclass(frozen=True)
class Training:
    """A call of `bn-inception train`: a recipe, and the other words, unquoted."""

    recipe: str
    words: tuple[str, ...]


Commands = list[Training | str]


def missing(setting: Setting, need: Need) -> tuple[list[str], Commands]:
    """What lacks of a need: reasons, and the commands that would make it."""
    reasons: list[str] = []
    commands: Commands = []
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
    return reasons, commands


def missing_ensemble(setting: Setting) -> tuple[list[str], Commands]:
    """The same of an evaluation of six networks with 144 crops."""
    if any(e.models == ENSEMBLE_MODELS and e.crops == "144" for e in setting.ensembles):
        return [], []
    commands = [command for member in _MEMBERS for command in missing(setting, member)[1]]
    folders = (_folder(setting, member) for member in _MEMBERS)
    commands.append(shell_command(["bn-inception", "ensemble", *folders, "output=ensemble.npz"]))
    return ["no evaluation of an ensemble of six networks with 144 crops was given"], commands


def another_seed(setting: Setting, needs: Sequence[Need]) -> Commands:
    """The commands of one more seed of all needs."""
    runs = [run for need in needs for run in setting.all_of(need)]
    seed = 1 + max((run.summary.seed for run in runs), default=-1)
    evaluations = [
        _evaluate(_folder(setting, need, seed), crops) for need in needs for crops in need.crops
    ]
    return [*(_train(setting, need, seed) for need in needs), *evaluations]


def in_words(commands: Commands) -> tuple[str, ...]:
    """Commands for copying; trainings that differ in their recipe alone are one `train -m`."""
    groups: dict[Training | str, Commands] = {}
    for command in dict.fromkeys(commands):
        alike = isinstance(command, Training) and _sweeps(command)
        key = replace(command, recipe="") if isinstance(command, Training) and alike else command
        groups.setdefault(key, []).append(command)
    return tuple(map(_said, groups.values()))


def _sweeps(command: Training) -> bool:
    # `train -m` reads a comma outside a list as one between several values.
    return not any(
        word.startswith("run.resume") or ("," in word and "=[" not in word)
        for word in command.words
    )


def _said(commands: Commands) -> str:
    trainings = [command for command in commands if isinstance(command, Training)]
    if not trainings:
        return str(commands[0])
    many = ["-m"] if len(trainings) > 1 else []
    recipe = f"recipe={','.join(command.recipe for command in trainings)}"
    return shell_command(["bn-inception", "train", *many, recipe, *trainings[0].words])


def _train(setting: Setting, need: Need, seed: int | None = None) -> Training:
    """The command that makes, or finishes, a run."""
    for run in setting.all_of(need):
        if not run.ended and seed is None:
            return _training(run, need, (*run.overrides, *run.options), ["run.resume=must"])
    # Its data and options are those of a run that is there.
    model = setting.runs[0]
    dropped = ["run.name", "run.seed"]
    # A run that was cut short is no model of the length.
    dropped += ["train.steps"] if any(run.cut_short for run in setting.runs) else []
    words = [
        word
        for word in (*setting.overrides, *model.options)
        if word.partition("=")[0] not in dropped
    ]
    return _training(model, need, words, _own_words(need, seed))


def _own_words(need: Need, seed: int | None) -> list[str]:
    """What a need's runs are given and others are not."""
    # The members of the ensemble have a seed each, so that their images differ in order too.
    number = need.recipe.removeprefix("ensemble_")
    first = int(number) if number != need.recipe else 0
    chosen = first if seed is None else seed
    return [
        *([need.change] if need.change else []),
        *([f"run.seed={chosen}"] if chosen else []),
    ]


def _training(run: Run, need: Need, quoted: Iterable[str], extra: Sequence[str]) -> Training:
    """`extra` takes the place of words of the same key; overrides and options are quoted."""
    summary, given = run.summary, {word.partition("=")[0] for word in extra}
    kept = [word for word in quoted if word.partition("=")[0] not in given]
    words = [f"scale={summary.scale}", *([f"data={summary.data}"] if summary.data else [])]
    words += [*(part for word in kept for part in split(word)), *extra]
    return Training(need.recipe.replace("ensemble_", "ensemble/"), tuple(words))


def _why_none(setting: Setting, need: Need) -> str:
    for run in setting.all_of(need):
        if run.cut_short:
            planned = run.summary.planned_steps or run.summary.step
            return f"{run.name} is cut short: {planned:,} of {run.recipe_steps:,} steps"
        return f"{run.name} is not finished ({run.summary.status.value})"
    return f"no run of {need}"


def _folder(setting: Setting, need: Need, seed: int | None = None) -> str:
    """Where its first run is, or where its command puts it."""
    runs = setting.of(need)
    if runs and seed is None:
        return str(runs[0].path)
    words = _train(setting, need, seed).words
    at = dict(word.partition("=")[::2] for word in words)
    summary = setting.runs[0].summary
    usual = f"{need.recipe}-{summary.scale}-{summary.data}-seed{at.get('run.seed', 0)}"
    changed = suffix(word for word in words if not word.startswith(("scale=", "data=")))
    return str(setting.runs[0].path.parent / at.get("run.name", usual + changed))


def _evaluate(folder: str, crops: str) -> str:
    return shell_command(["bn-inception", "evaluate", f"run={folder}", f"crops={crops}"])
