"""What a statement lacks in a setting, and the commands that would make it."""

from collections.abc import Iterable, Sequence
from shlex import split

from bn_inception.paper.results import ENSEMBLE_MODELS
from bn_inception.quoting import shell_command
from bn_inception.record.naming import suffix
from bn_inception.report.settings import Need, Setting

Words = tuple[str, ...]
"""Of a command, unquoted; the third of a training is its recipe."""
_MEMBERS = tuple(
    Need(f"ensemble_{member}", crops=("144",)) for member in range(1, ENSEMBLE_MODELS + 1)
)


def missing(setting: Setting, need: Need) -> tuple[list[str], list[Words]]:
    """What lacks of a need: reasons, and the commands that would make it."""
    reasons, commands, runs = [], [], setting.of(need)
    if not runs:
        reasons.append(_why_none(setting, need))
        commands.append(_command("train", _train(setting, need)))
    kinds = {entry.crops for run in runs for entry in run.own_evaluations}
    for crops in need.crops:
        if crops not in kinds:
            crop = "a single crop" if crops == "single" else f"{crops} crops"
            reasons.append(f"{runs[0].name if runs else need} has no evaluation with {crop}")
            commands.append(_evaluate(_folder(setting, need), crops))
    return reasons, commands


def missing_ensemble(setting: Setting) -> tuple[list[str], list[Words]]:
    """The same of an evaluation of six networks with 144 crops."""
    if any(e.models == ENSEMBLE_MODELS and e.crops == "144" for e in setting.ensembles):
        return [], []
    commands = [command for member in _MEMBERS for command in missing(setting, member)[1]]
    folders = [_folder(setting, member) for member in _MEMBERS]
    commands.append(_command("ensemble", [*folders, "output=ensemble.npz"]))
    return ["no evaluation of an ensemble of six networks with 144 crops was given"], commands


def another_seed(setting: Setting, needs: Sequence[Need]) -> list[Words]:
    """The commands of one more seed of all needs."""
    runs = [run for need in needs for run in setting.all_of(need)]
    seed = 1 + max((run.summary.seed for run in runs), default=-1)
    return [_command("train", _train(setting, need, seed)) for need in needs] + [
        _evaluate(_folder(setting, need, seed), crops) for need in needs for crops in need.crops
    ]


def _train(setting: Setting, need: Need, seed: int | None = None) -> list[str]:
    """The arguments that make, or finish, a run."""
    # Data and options are those of a run that is there.
    model, dropped, own = setting.runs[0], ["run.name", "run.seed"], []
    # A run that was cut short is no model of the length.
    dropped += ["train.steps"] if any(run.cut_short for run in setting.runs) else []
    overrides = setting.overrides
    if seed is None:
        # The members of the ensemble have a seed each, so that their images differ in order too.
        number = need.recipe.removeprefix("ensemble_")
        seed = int(number) if number != need.recipe else 0
        unfinished = [run for run in setting.all_of(need) if not run.ended]
        for run in unfinished[:1]:
            model, overrides, dropped, own = run, run.overrides, [], ["run.resume=must"]
    own = own or [*filter(None, [need.change]), *([f"run.seed={seed}"] if seed else [])]
    dropped += [word.partition("=")[0] for word in own]
    kept = [w for w in (*overrides, *model.options) if w.partition("=")[0] not in dropped]
    summary = model.summary
    return [
        f"recipe={need.recipe.replace('ensemble_', 'ensemble/')}",
        f"scale={summary.scale}",
        *([f"data={summary.data}"] if summary.data else []),
        # These are quoted.
        *(part for word in kept for part in split(word)),
        *own,
    ]


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
    words = _train(setting, need, seed)
    given = dict(word.partition("=")[::2] for word in words)
    first = setting.runs[0]
    usual = f"{need.recipe}-{first.summary.scale}-{first.summary.data}"
    changed = suffix(w for w in words if not w.startswith(("recipe=", "scale=", "data=")))
    name = given.get("run.name", f"{usual}-seed{given.get('run.seed', 0)}{changed}")
    return str(first.path.parent / name)


def _evaluate(folder: str, crops: str) -> Words:
    return _command("evaluate", [f"run={folder}", f"crops={crops}"])


def _command(name: str, words: Sequence[str]) -> Words:
    return "bn-inception", name, *words


def for_copying(commands: Iterable[Words]) -> tuple[str, ...]:
    """Each once, quoted; trainings that differ in their recipe alone are one `train -m`."""
    groups: dict[Words, list[Words]] = {}
    for command in dict.fromkeys(commands):
        key = (*command[:2], *command[3:]) if _sweeps(command) else command
        groups.setdefault(key, []).append(command)
    made = []
    for first, *others in groups.values():
        recipes = [word.removeprefix("recipe=") for _, _, word, *_ in others]
        many = ("-m", ",".join([first[2], *recipes])) if others else first[2:3]
        made.append(shell_command([*first[:2], *many, *first[3:]]))
    return tuple(made)


def _sweeps(command: Words) -> bool:
    # `train -m` reads a comma outside a list as one between several values.
    return command[1] == "train" and not any(
        word.startswith("run.resume=") or ("," in word and "=[" not in word) for word in command
    )
