"""What a statement lacks in a setting, and the commands that would make it."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bn_inception.paper.results import ENSEMBLE_MODELS
from bn_inception.quoting import shell_command
from bn_inception.record.naming import suffix
from bn_inception.report.runs import Run
from bn_inception.report.settings import Need, Setting

_MEMBERS = tuple(
    Need(f"ensemble_{member}", crops=("144",)) for member in range(1, ENSEMBLE_MODELS + 1)
)


def missing(setting: Setting, need: Need) -> tuple[list[str], list[str]]:
    """What lacks of a need: reasons, and the commands that would make it."""
    reasons, commands, runs = [], [], setting.of(need)
    if not runs:
        reasons.append(_why_none(setting, need))
        commands.append(train(setting, need))
    kinds = {str(entry.crops) for run in runs for entry in run.own_evaluations}
    for crops in need.crops:
        if crops.replace("single", "1") not in kinds:
            crop = "a single crop" if crops == "single" else f"{crops} crops"
            reasons.append(f"{runs[0].name if runs else need} has no evaluation with {crop}")
            commands.append(_evaluate(_folder(setting, need), crops))
    return reasons, commands


def missing_ensemble(setting: Setting) -> tuple[list[str], list[str]]:
    """The same of an evaluation of six networks with 144 crops."""
    if any(e.models == ENSEMBLE_MODELS and e.crops == 144 for e in setting.ensembles):
        return [], []
    commands = [command for member in _MEMBERS for command in missing(setting, member)[1]]
    folders = (_folder(setting, member) for member in _MEMBERS)
    commands.append(shell_command(["bn-inception", "ensemble", *folders, "output=ensemble.npz"]))
    return ["no evaluation of an ensemble of six networks with 144 crops was given"], commands


def another_seed(setting: Setting, needs: Sequence[Need]) -> list[str]:
    """The commands of one more seed of all needs."""
    runs = [run for need in needs for run in setting.all_of(need)]
    seed = 1 + max((run.summary.seed for run in runs), default=-1)
    return [train(setting, need, seed) for need in needs] + [
        _evaluate(_folder(setting, need, seed), crops) for need in needs for crops in need.crops
    ]


def train(setting: Setting, need: Need, seed: int | None = None) -> str:
    """The command that makes, or finishes, a run."""
    for run in setting.all_of(need):
        if not run.ended and seed is None:
            return _train(run, run.overrides, run.options, ["run.resume=must"])
    # Its data and options are those of a run that is there.
    model = setting.runs[0]
    # The members of the ensemble have a seed each, so that their images differ in order too.
    number = need.recipe.removeprefix("ensemble_")
    first = int(number) if number != need.recipe else 0
    chosen = first if seed is None else seed
    extra = [need.change] if need.change else []
    if chosen:
        extra.append(f"run.seed={chosen}")
    dropped = ["run.name", "run.seed"]
    # A run that was cut short is no model of the length.
    overrides = [
        word
        for word in setting.overrides
        if not word.startswith("train.steps=") or not any(run.cut_short for run in setting.runs)
    ]
    options = [word for word in model.options if word.partition("=")[0] not in dropped]
    made = replace(model, summary=replace(model.summary, recipe=need.recipe))
    return _train(made, overrides, options, extra)


def swept(commands: Iterable[str]) -> list[str]:
    """The same commands, those of training that differ in recipe and seed alone as one `train -m`.

    Only where every recipe is wanted with every seed: what `-m` makes is the product of the two.
    """
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for command in dict.fromkeys(commands):
        words = shlex.split(command)
        swept = {key: value for key, _, value in (word.partition("=") for word in words)
                 if key in ("recipe", "run.seed")}  # fmt: skip
        rest = tuple(word for word in words if word.partition("=")[0] not in swept)
        # Words that are quoted as $'...' are none that shlex reads.
        alone = (
            words[1] != "train"
            or "$'" in command
            or any(
                word.startswith(("run.", "-")) or ("," in word and "=[" not in word)
                for word in rest
            )
        )
        chosen = (swept.get("recipe", ""), swept.get("run.seed", "0"))
        groups.setdefault((command,) if alone else rest, []).append(chosen)
    made: list[str] = []
    for rest, pairs in groups.items():
        recipes, seeds = (list(dict.fromkeys(values)) for values in zip(*pairs, strict=True))
        if len(rest) == 1:
            made += rest
        elif len(pairs) < len(recipes) * len(seeds):
            made += [_swept(rest, [recipe], [seed]) for recipe, seed in pairs]
        else:
            made.append(_swept(rest, recipes, seeds))
    return made


def _swept(rest: Sequence[str], recipes: Sequence[str], seeds: Sequence[str]) -> str:
    many = ["-m"] if len(recipes) * len(seeds) > 1 else []
    seed = [] if list(seeds) == ["0"] else [f"run.seed={','.join(seeds)}"]
    return shell_command([*rest[:2], *many, f"recipe={','.join(recipes)}", *rest[2:], *seed])


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
    words = shlex.split(train(setting, need, seed))
    at = dict(word.partition("=")[::2] for word in words if "=" in word)
    model = setting.runs[0]
    usual = f"{need.recipe}-{model.summary.scale}-{model.summary.data}-seed{at.get('run.seed', 0)}"
    return str(model.path.parent / at.get("run.name", usual + suffix(words[2:])))


def _train(run: Run, overrides: Iterable[str], options: Iterable[str], extra: Sequence[str]) -> str:
    """`extra` takes the place of overrides and options of the same key, which are quoted."""
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
