"""One function a statement of `bn_inception.paper`: comparable runs in, a finding out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from bn_inception.paper import statements
from bn_inception.paper.results import (
    ENSEMBLE_MODELS,
    FIGURE_4,
    IMAGENET_VALIDATION_IMAGES,
    MINI_BATCH,
)
from bn_inception.record.interval import LEVEL, wilson_interval
from bn_inception.record.predictions import read_predictions
from bn_inception.record.summary import RunStatus
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.findings import (
    Evidence,
    Finding,
    Setting,
    both,
    command,
    missing,
    of_run,
    percent,
    percent_points,
    points,
)
from bn_inception.report.runs import Run
from bn_inception.report.seeds import (
    Difference,
    accuracy_difference,
    difference_of_pairs,
    difference_of_rates,
    difference_of_seeds,
)

TOP = 5

# --- statements 1 to 3: steps


@dataclass(frozen=True)
class _Target:
    """Plain Inception's maximum; its step lies after `before` and is at most `step`."""

    top1: float
    before: float
    step: float
    runs: tuple[Run, ...]


def _target(setting: Setting) -> _Target | Finding:
    """The target, or why the plain runs set none."""
    runs = setting.ended("inception")
    evidence = tuple(map(of_run, runs))
    for run in runs:
        if run.summary.status is RunStatus.diverged:
            reason = f"the plain network {run.name} diverged and sets no target"
        elif above_chance(run) is not True:
            reason = f"the plain network {run.name} is not above chance: reaching it shows nothing"
        else:
            continue
        return Finding(None, reason, evidence, (setting.another_seed("inception"),))
    maxima = [run.maximum_top1 or 0.0 for run in runs]
    at = [run.maximum_step or 0.0 for run in runs]
    before = [(0.0, *run.steps)[run.steps.index(step)] for run, step in zip(runs, at, strict=True)]
    return _Target(fmean(maxima), fmean(before), fmean(at), tuple(runs))


@dataclass(frozen=True)
class _Reached:
    """The true step to the target, the mean over seeds, lies after `before`, at most `step`."""

    before: float
    step: float
    evidence: tuple[Evidence, ...]


def _reached(runs: Sequence[Run], target: float) -> _Reached | tuple[Evidence, ...]:
    """When every run met the target; only the evidence where one never did."""
    evidence, steps = [], []
    for run in runs:
        reached = run.reaches(target)
        if reached is None:
            last = run.steps[-1] if run.steps else 0
            says = f"never reached {percent(target)} in {last:,.0f} steps"
        else:
            steps.append(reached)
            says = f"{percent(target)} at step {reached[0]:,.0f} (after {reached[1]:,.0f})"
        evidence.append(of_run(run, says))
    if len(steps) < len(runs):
        return tuple(evidence)
    return _Reached(
        fmean(before for _, before in steps), fmean(step for step, _ in steps), tuple(evidence)
    )


def _below_until(runs: Sequence[Run], target: float) -> float:
    """Up to which step it is known that a run which never met the target had not: the shortest's.

    Infinity where one diverged: it never will.
    """
    if any(run.summary.status is RunStatus.diverged for run in runs):
        return math.inf
    return min(run.steps[-1] if run.steps else 0.0 for run in runs if run.reaches(target) is None)


def _who(runs: Sequence[Run], target: float, name: str) -> str:
    """Which of a recipe's runs never met the target: its name, or how many of them."""
    below = sum(run.reaches(target) is None for run in runs)
    return name if below == len(runs) else f"{below} of {len(runs)} runs of {name}"


def _share(setting: Setting, recipe: str, limit: float, *, inclusive: bool) -> Finding:
    """Whether `recipe` needs at most `limit` (or less than it) of the plain network's steps."""
    absent = missing(setting, ("inception", recipe))
    if absent is not None:
        return absent
    target = _target(setting)
    if isinstance(target, Finding):
        return target
    plain = tuple(of_run(run) for run in target.runs)
    runs = setting.ended(recipe)
    reached = _reached(runs, target.top1)
    goal = f"{percent(target.top1)} (plain Inception after {target.step:,.0f} steps)"
    if not isinstance(reached, _Reached):
        length, who = _below_until(runs, target.top1), _who(runs, target.top1, recipe)
        if length >= limit * target.step:
            return Finding(False, f"{who} never reached {goal}", plain + reached)
        return Finding(
            None,
            f"{who} ran for {length:,.0f} steps only, without reaching {goal}",
            plain + reached,
            (setting.train(recipe, f"train.steps={math.ceil(limit * target.step)}"),),
        )
    low = reached.before / target.step
    high = reached.step / target.before if target.before else math.inf
    measured = reached.step / target.step
    upper = f"{100 * high:.1f} %" if math.isfinite(high) else "any"
    reason = f"{percent(measured)} of the steps (bounds {100 * low:.1f} % to {upper}) to {goal}"
    below = high <= limit if inclusive else high < limit
    # The true ratio lies strictly above `low`.
    if below:
        return Finding(True, reason, plain + reached.evidence)
    if low >= limit:
        return Finding(False, reason, plain + reached.evidence)
    return Finding(
        None,
        f"evaluated too seldom to tell: {reason}, the limit is {percent(limit)}",
        plain + reached.evidence,
        (setting.more_often("inception"), setting.more_often(recipe)),
    )


def _half_the_steps(setting: Setting) -> Finding:
    limit = statements.STEPS_SHARE_BN_BASELINE
    return _share(setting, "bn_baseline", limit, inclusive=False)


def _seven_percent(setting: Setting) -> Finding:
    limit = statements.STEPS_SHARE_BN_X5 * (1 + statements.STEPS_SHARE_TOLERANCE)
    return _share(setting, "bn_x5", limit, inclusive=True)


def _slower_then_higher(setting: Setting) -> Finding:
    absent = missing(setting, ("inception", "bn_x5", "bn_x30"))
    if absent is not None:
        return absent
    target = _target(setting)
    if isinstance(target, Finding):
        return target
    x5, x30 = setting.ended("bn_x5"), setting.ended("bn_x30")
    return both(_slower(setting, x30, x5, target), _higher(setting, x30, x5, 0.0))


def _slower(setting: Setting, x30: Sequence[Run], x5: Sequence[Run], goal: _Target) -> Finding:
    """Whether BN-x30 was still below the target when BN-x5 had met it."""
    target = goal.top1
    reached_x5, reached_x30 = _reached(x5, target), _reached(x30, target)
    if isinstance(reached_x5, _Reached) and isinstance(reached_x30, _Reached):
        reason = (
            f"{percent(target)} at step {reached_x30.step:,.0f} (after "
            f"{reached_x30.before:,.0f}) against {reached_x5.step:,.0f} (after "
            f"{reached_x5.before:,.0f})"
        )
        holds = None
        if reached_x30.before >= reached_x5.step:
            holds = True
        elif reached_x5.before >= reached_x30.step:
            holds = False
        else:
            reason = f"evaluated too seldom to tell which was first: {reason}"
        commands = (setting.more_often("bn_x5"), setting.more_often("bn_x30"))
        return Finding(holds, reason, reached_x5.evidence + reached_x30.evidence, commands)
    if isinstance(reached_x5, _Reached):
        assert not isinstance(reached_x30, _Reached)
        evidence = reached_x5.evidence + reached_x30
        return _never(setting, x30, "BN-x30", reached_x5.step, target, evidence, slower=True)
    if isinstance(reached_x30, _Reached):
        evidence = reached_x5 + reached_x30.evidence
        return _never(setting, x5, "BN-x5", reached_x30.step, target, evidence, slower=False)
    # As long as the plain network took.
    longer = f"train.steps={math.ceil(goal.step)}"
    return Finding(
        None,
        f"neither BN-x5 nor BN-x30 reached {percent(target)}",
        reached_x5 + reached_x30,
        (setting.train("bn_x5", longer), setting.train("bn_x30", longer)),
    )


def _never(
    setting: Setting,
    runs: Sequence[Run],
    name: str,
    needed: float,
    target: float,
    evidence: tuple[Evidence, ...],
    *,
    slower: bool,
) -> Finding:
    """The finding `slower` if `runs`, which never met the target, trained to step `needed`."""
    length, who = _below_until(runs, target), _who(runs, target, name)
    if length >= needed:
        return Finding(slower, f"{who} never reached {percent(target)}", evidence)
    command = setting.train(runs[0].summary.recipe, f"train.steps={math.ceil(needed)}")
    reason = f"{who} ran for {length:,.0f} steps only, without reaching {percent(target)}"
    return Finding(None, reason, evidence, (command,))


def _higher(
    setting: Setting, first: Sequence[Run], second: Sequence[Run], margin: float
) -> Finding:
    """Whether the maximum of `first` lies above that of `second`, by at least `margin`."""
    names = first[0].summary.recipe, second[0].summary.recipe
    evidence = tuple(map(of_run, (*first, *second)))
    commands = tuple(map(setting.another_seed, names))
    difference = accuracy_difference(first, second)
    if difference is None:
        return Finding(None, "a run without an evaluation", evidence, commands)
    reason = f"maximum of {names[0]} - {names[1]}: {points(difference)}"
    if difference.low > 0 and difference.value >= margin:
        return Finding(True, reason, evidence)
    # Below the margin with the whole interval; for no margin, on the other side of 0.
    if difference.high < margin:
        return Finding(False, reason, evidence)
    return Finding(None, f"smaller than the noise: {reason}", evidence, commands)


# --- statements 4 to 6


def _margin(setting: Setting) -> Finding:
    absent = missing(setting, ("inception", "bn_x30"))
    if absent is not None:
        return absent
    target = _target(setting)
    if isinstance(target, Finding):
        return target
    margin = statements.SUBSTANTIAL_MARGIN
    return _higher(setting, setting.ended("bn_x30"), target.runs, margin)


def above_chance(run: Run) -> bool | None:
    """Whether any evaluation of `run` is better than guessing.

    Each has a binomial interval; with K of them each is taken at 1 - 0.05 / K (Bonferroni), so that
    a network at chance is called better in at most 5 % of all runs, however often it is evaluated.

    Returns:
        None without an evaluation, or where the number of classes is unknown.
    """
    if not run.steps or not run.summary.classes:
        return None
    level = 1 - (1 - LEVEL) / len(run.steps)
    low, _ = wilson_interval(run.maximum_top1 or 0.0, run.validation_count, level)
    return low > 1 / run.summary.classes


def _diverges_and_trains(setting: Setting) -> Finding:
    plain = missing(setting, ("inception_x5",))
    if plain is None:
        runs = setting.ended("inception_x5")
        diverged = [run for run in runs if run.summary.status is RunStatus.diverged]
        plain = Finding(
            len(diverged) == len(runs),
            f"{len(diverged)} of {len(runs)} plain networks at the fivefold rate diverged",
            tuple(map(of_run, runs)),
        )
    return both(plain, _trains(setting, "bn_x5"))


def _trains(setting: Setting, recipe: str) -> Finding:
    """Whether every run finished and is above chance."""
    absent = missing(setting, (recipe,))
    if absent is not None:
        return absent
    runs = setting.ended(recipe)
    evidence = tuple(map(of_run, runs))
    answers = [run.summary.status is not RunStatus.diverged and above_chance(run) for run in runs]
    trained = sum(answer is True for answer in answers)
    holds: bool | None = trained == len(runs)
    if None in answers and False not in answers:
        holds = None
    return Finding(
        holds,
        f"{trained} of {len(runs)} runs of {recipe} finished above chance ({_chance(runs[0])})",
        evidence,
        (setting.another_seed(recipe),),
    )


def _sigmoid(setting: Setting) -> Finding:
    plain = missing(setting, ("inception_sigmoid",))
    if plain is None:
        runs = setting.ended("inception_sigmoid")
        answers = [above_chance(run) for run in runs]
        at_chance = sum(answer is False for answer in answers)
        holds: bool | None = at_chance == len(runs)
        if None in answers and True not in answers:
            holds = None
        plain = Finding(
            holds,
            f"{at_chance} of {len(runs)} plain networks with sigmoid stayed at chance "
            f"({_chance(runs[0])})",
            tuple(map(of_run, runs)),
            (setting.another_seed("inception_sigmoid"),),
        )
    return both(_trains(setting, "bn_x5_sigmoid"), plain)


def _chance(run: Run) -> str:
    return percent(1 / run.summary.classes) if run.summary.classes else "unknown"


# --- statement 7: by computation


def judge_invariance(differences: tuple[float, float] | None) -> Finding:
    """Statement 7, from the relative differences of outputs and gradients; None: not computed."""
    if differences is None:
        return Finding(None, "not computed", commands=("bn-inception claims RUN_FOLDER ...",))
    output, gradient = differences
    limit = statements.INVARIANCE_TOLERANCE
    # Not "greater than": NaN must not pass.
    return Finding(
        output <= limit and gradient <= limit,
        f"largest relative difference: outputs {output:.1e}, gradients {gradient:.1e}",
    )


# --- statement 8: dropout


def _dropout(setting: Setting) -> Finding:
    dropout = [word for word in setting.overrides if word.startswith("network.dropout=")]
    if dropout:
        plain = [word for word in setting.overrides if word not in dropout]
        return Finding(
            None,
            "only runs with dropout",
            commands=(command(setting.runs[0], plain, ("recipe=bn_x5",), new=True),),
        )
    absent = missing(setting, ("bn_x5",))
    without = setting.ended("bn_x5")
    with_dropout = [
        run
        for run in setting.others
        if run.summary.recipe == "bn_x5" and _only_dropout(setting, run)
    ]
    ended = [run for run in with_dropout if run.ended]
    if absent is not None or not ended:
        unfinished = next((run for run in with_dropout if not run.ended), None)
        if unfinished is None:
            # Its folder must not be that of bn_x5 without dropout.
            name = f"run.name=bn_x5-{setting.runs[0].summary.scale}-dropout0.4"
            first = setting.train("bn_x5", "network.dropout=0.4", name)
        else:
            first = command(unfinished, unfinished.overrides, ("run.resume=true",))
        needed = Finding(
            None,
            "no finished run of bn_x5 with network.dropout=0.4",
            tuple(map(of_run, without)),
            (first,),
        )
        return needed if absent is None else both(absent, needed)
    evidence = [
        of_run(run, f"gap {percent_points(gap)} ({percent(training)} training)")
        for run in (*without, *ended)
        if (measured := _gap(run)) is not None
        for gap, training, _ in [measured]
    ]
    gaps = _gap_difference(without, ended)
    accuracy = accuracy_difference(without, ended)
    if gaps is None or accuracy is None:
        return Finding(
            None,
            "a run without training accuracy or evaluation",
            tuple(evidence),
            (setting.another_seed("bn_x5"),),
        )
    reason = (
        f"gap without - with dropout {points(gaps)}; maximum validation accuracy {points(accuracy)}"
    )
    limit = statements.GAP_TOLERANCE
    if gaps.high <= limit:
        return Finding(True, reason, tuple(evidence))
    if gaps.low > limit and accuracy.high < 0:
        return Finding(False, reason, tuple(evidence))
    seeds = {run.summary.seed for run in ended}
    unused = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
    name = f"run.name=bn_x5-{setting.runs[0].summary.scale}-dropout0.4-seed{unused}"
    dropout = [word for word in ended[0].overrides if word.startswith("network.dropout=")]
    return Finding(
        None,
        f"not decided: {reason}",
        tuple(evidence),
        (
            setting.another_seed("bn_x5"),
            setting.train("bn_x5", *dropout, f"run.seed={unused}", name),
        ),
    )


def _only_dropout(setting: Setting, run: Run) -> bool:
    rest = tuple(word for word in run.overrides if not word.startswith("network.dropout="))
    return rest == setting.overrides


def _gap(run: Run) -> tuple[float, float, int] | None:
    """(gap, training accuracy, training images it is measured on) at the last evaluation."""
    if not run.steps or not run.validation_count:
        return None
    end, begin = run.steps[-1], (0.0, *run.steps)[-2]
    training = [top1 for step, top1 in run.training if begin < step <= end]
    if not training:
        return None
    images = round((end - begin) * MINI_BATCH)
    return fmean(training) - run.top1[-1], fmean(training), images


def _gap_difference(without: Sequence[Run], with_dropout: Sequence[Run]) -> Difference | None:
    measured = [[_gap(run) for run in runs] for runs in (without, with_dropout)]
    known = [[gap for gap in gaps if gap is not None] for gaps in measured]
    if known != measured:
        return None
    if min(map(len, known)) >= 2:
        first, second = ([gap for gap, _, _ in gaps] for gaps in known)
        return difference_of_seeds(first, second)
    # One seed: the binomial intervals of training and validation accuracy, put together.
    (_, training, images), (_, other_training, other_images) = known[0][0], known[1][0]
    trained = difference_of_rates(training, other_training, images, other_images)
    one, other = without[0], with_dropout[0]
    validated = difference_of_rates(
        one.top1[-1], other.top1[-1], one.validation_count, other.validation_count
    )
    value = trained.value - validated.value
    low = math.hypot(trained.value - trained.low, validated.high - validated.value)
    high = math.hypot(trained.high - trained.value, validated.value - validated.low)
    return Difference(value, value - low, value + high, "binomial, one seed")


# --- statement 9: crops and ensembles


def _crops_and_ensemble(setting: Setting) -> Finding:
    absent = missing(setting, ("bn_x30",))
    if absent is not None:
        evaluations = Finding(
            None, absent.reason, commands=_evaluate(setting, "bn_x30", ("single", "144"))
        )
        return both(absent, evaluations, _ensemble(setting, None, None))
    run, single, multi = max(
        ((run, *_evaluation_pair(run)) for run in setting.ended("bn_x30")),
        key=lambda found: sum(entry is not None for entry in found[1:]),
    )
    if single is None or multi is None:
        needed = [name for name, entry in (("single", single), ("144", multi)) if entry is None]
        crops = Finding(
            None,
            f"{run.name} has no evaluation with {' and '.join(needed)} crops".replace(
                "single crops", "a single crop"
            ),
            (of_run(run),),
            _evaluate(setting, "bn_x30", needed),
        )
    else:
        another = (
            setting.another_seed("bn_x30"),
            *_evaluate(setting, "bn_x30", ("single", "144")),
        )
        crops = _lower_error(multi, single, "144 crops", "single crop", another)
    return both(crops, _ensemble(setting, run, multi))


def _evaluate(setting: Setting, recipe: str, crops: Sequence[str]) -> tuple[str, ...]:
    folder = setting.folder(recipe)
    return tuple(f"bn-inception evaluate run={folder} crops={kind}" for kind in crops)


def _evaluation_pair(run: Run) -> tuple[Evaluation | None, Evaluation | None]:
    """Single-crop and 144-crop evaluations with the same statistics, population ones preferred."""
    by_kind = {
        (evaluation.crops, evaluation.statistics): evaluation
        for evaluation in run.evaluations
        # On the images the run was watched on, not on others.
        if evaluation.models == 1 and evaluation.count == run.validation_count
    }
    pairs = [
        (by_kind.get((1, statistics)), by_kind.get((144, statistics)))
        for statistics in ("population", "running", None)
    ]
    return max(pairs, key=lambda pair: sum(entry is not None for entry in pair))


def _ensemble(setting: Setting, run: Run | None, multi: Evaluation | None) -> Finding:
    candidates = [
        entry
        for entry in setting.ensembles
        if entry.models == ENSEMBLE_MODELS and entry.crops == 144
    ]
    if not candidates:
        reason = "no evaluation of an ensemble of six networks with 144 crops was given"
        return Finding(None, reason, commands=_six_networks(setting))
    if run is None or multi is None:
        reason = "no network evaluated with 144 crops to compare the ensemble with"
        return Finding(None, reason, tuple(map(_of_evaluation, candidates)))
    alike = [entry for entry in candidates if entry.like(multi)]
    if not alike:
        reason = (
            "no ensemble of six networks was evaluated with 144 crops on the images, at the image "
            f"size and with the BN statistics of {run.name}"
        )
        evidence = (*map(_of_evaluation, candidates), _of_evaluation(multi))
        return Finding(None, reason, evidence, _six_networks(setting))
    ensemble = min(alike, key=lambda entry: entry.top5_error)
    others = tuple(
        setting.train(f"ensemble_{member}", f"run.seed={member + ENSEMBLE_MODELS}")
        for member in range(1, ENSEMBLE_MODELS + 1)
    )
    lower = _lower_error(ensemble, multi, "six networks", "one network", others)
    if run.summary.scale != "paper" or run.summary.data != "imagenet":
        return replace(lower, reason=f"{lower.reason}; 4.9 % itself is not tested at this scale")
    return both(lower, _error_value(setting, ensemble))


def _six_networks(setting: Setting) -> tuple[str, ...]:
    """The commands to train, evaluate and average those members that are not there yet."""
    members = [f"ensemble_{member}" for member in range(1, ENSEMBLE_MODELS + 1)]
    commands = [setting.train(member) for member in members if not setting.ended(member)]
    for member in members:
        if not any(e.crops == 144 for run in setting.ended(member) for e in run.evaluations):
            commands += _evaluate(setting, member, ("144",))
    folders = " ".join(map(setting.folder, members))
    return (*commands, f"bn-inception ensemble {folders} output=ensemble.npz")


def _error_value(setting: Setting, ensemble: Evaluation) -> Finding:
    reason = f"top-5 error {100 * ensemble.top5_error:.2f} % against the paper's 4.9 %"
    evidence = (_of_evaluation(ensemble),)
    if ensemble.count != IMAGENET_VALIDATION_IMAGES:
        reason += f", but on {ensemble.count:,} images"
        return Finding(None, reason, evidence, _six_networks(setting))
    limit = FIGURE_4[-1].top5_error + statements.TOP5_ERROR_TOLERANCE
    return Finding(ensemble.top5_error <= limit, reason, evidence)


def _lower_error(
    first: Evaluation,
    second: Evaluation,
    first_name: str,
    second_name: str,
    commands: tuple[str, ...],
) -> Finding:
    """Whether `first` has the lower top-5 error; `commands` give further networks to tell by."""
    difference = _paired(second, first) or difference_of_rates(
        second.top5_error, first.top5_error, second.count, first.count
    )
    reason = f"top-5 error of {second_name} - {first_name}: {points(difference)}"
    evidence = (_of_evaluation(second), _of_evaluation(first))
    if difference.low > 0:
        return Finding(True, reason, evidence)
    if difference.high < 0:
        return Finding(False, reason, evidence)
    return Finding(None, f"smaller than the noise: {reason}", evidence, commands)


def _paired(first: Evaluation, second: Evaluation) -> Difference | None:
    """Top-5 error of `first` minus that of `second`, image by image.

    None where the predictions do not lie beside both, or are of different images.
    """
    files = [entry.path.with_suffix(".npz") for entry in (first, second)]
    if not all(file.is_file() for file in files):
        return None
    one, other = map(read_predictions, files)
    if not np.array_equal(one.ids, other.ids) or not np.array_equal(one.labels, other.labels):
        return None
    wrong, other_wrong = one.ranks() >= TOP, other.ranks() >= TOP
    only_first = int((wrong & ~other_wrong).sum())
    only_second = int((other_wrong & ~wrong).sum())
    return difference_of_pairs(only_first, only_second, len(one))


def _of_evaluation(evaluation: Evaluation) -> Evidence:
    low, high = evaluation.top5_interval
    networks = "1 network" if evaluation.models == 1 else f"{evaluation.models} networks"
    crops = "1 crop" if evaluation.crops == 1 else f"{evaluation.crops} crops"
    return Evidence(
        evaluation.path.name,
        str(evaluation.path),
        f"{networks}, {crops}: top-1 error {100 * evaluation.top1_error:.2f} %, top-5 error "
        f"{100 * evaluation.top5_error:.2f} % ({100 * low:.2f} to {100 * high:.2f}), "
        f"{evaluation.count:,} images",
    )


JUDGES: dict[int, Callable[[Setting], Finding]] = {
    1: _half_the_steps,
    2: _seven_percent,
    3: _slower_then_higher,
    4: _margin,
    5: _diverges_and_trains,
    6: _sigmoid,
    8: _dropout,
    9: _crops_and_ensemble,
}
