"""The statements of `bn_inception.paper.statements`, judged by runs.

Only what has ended is evidence: a run that goes on or was interrupted may still do otherwise. Runs
are compared where they share scale, data, classes and whatever was set otherwise than in their
recipes. Of several such settings, one in which a statement does not hold outweighs those in which
it does.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean

from bn_inception.paper import statements
from bn_inception.paper.results import ENSEMBLE_MODELS, FIGURE_4, MINI_BATCH
from bn_inception.paper.statements import STATEMENTS, Statement
from bn_inception.record.summary import RunStatus
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.runs import Run
from bn_inception.report.seeds import (
    LEVEL,
    Difference,
    accuracy_difference,
    binomial_interval,
    difference_of_rates,
    difference_of_seeds,
    distinct_seeds,
)


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
class Verdict:
    """One statement, judged.

    Attributes:
        statement: which.
        outcome: see Outcome.
        reason: the numbers that decide, or what is missing.
        evidence: what was looked at.
        commands: where not tested, what would test it, one after the other; else empty.
    """

    statement: Statement
    outcome: Outcome
    reason: str
    evidence: tuple[Evidence, ...]
    commands: tuple[str, ...]


def judge(
    runs: Sequence[Run],
    *,
    ensembles: Sequence[Evaluation] = (),
    invariance: tuple[float, float] | None = None,
) -> list[Verdict]:
    """Judge every statement.

    Args:
        runs: at least one; of equal ones the most often evaluated counts.
        ensembles: saved evaluations of several networks.
        invariance: largest relative differences of outputs and gradients, for statement 7, as
            `bn_inception.network.invariance.scale_invariance` gives them; None if not computed.

    Returns:
        One verdict a statement, in their order.
    """
    settings = _settings(runs, ensembles)
    verdicts = []
    for statement in STATEMENTS:
        if statement.number == 7:
            finding = _invariance(invariance)
        else:
            finding = _of_all_settings(settings, _JUDGES[statement.number])
        verdicts.append(finding.verdict(statement))
    return verdicts


@dataclass(frozen=True)
class _Finding:
    """`holds` is None where the evidence does not decide; `commands` is what would."""

    holds: bool | None
    reason: str
    evidence: tuple[Evidence, ...] = ()
    commands: tuple[str, ...] = ()

    def verdict(self, statement: Statement) -> Verdict:
        outcome = {True: Outcome.holds, False: Outcome.does_not_hold, None: Outcome.not_tested}
        commands = self.commands if self.holds is None else ()
        return Verdict(
            statement,
            outcome[self.holds],
            self.reason,
            self.evidence,
            tuple(dict.fromkeys(commands)),
        )


def _both(*findings: _Finding) -> _Finding:
    """All must hold; one that does not decides."""
    holds: bool | None = True
    if any(finding.holds is False for finding in findings):
        holds = False
    elif any(finding.holds is None for finding in findings):
        holds = None
    return _Finding(
        holds,
        "; ".join(dict.fromkeys(finding.reason for finding in findings)),
        tuple(dict.fromkeys(entry for finding in findings for entry in finding.evidence)),
        tuple(command for finding in findings for command in finding.commands),
    )


@dataclass(frozen=True)
class _Setting:
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
        return [run for run in self.runs if run.summary.recipe == recipe and run.ended]

    def train(self, recipe: str, *extra: str) -> str:
        """The command that makes, or finishes, the run of `recipe` that is missing here."""
        for run in self.runs:
            if run.summary.recipe == recipe and not run.ended and not extra:
                return _command(run, run.overrides, ("run.resume=true",))
        # Its data and options are those of a run that is there.
        model = self.runs[0]
        model = replace(model, summary=replace(model.summary, recipe=recipe, seed=0))
        return _command(model, self.overrides, extra, new=True)

    def another_seed(self, recipe: str) -> str:
        seeds = {run.summary.seed for run in self.runs if run.summary.recipe == recipe}
        unused = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
        return self.train(recipe, f"run.seed={unused}")

    def more_often(self, recipe: str) -> str:
        """The same run, evaluated ten times as often."""
        run = self.ended(recipe)[0]
        own_steps = MINI_BATCH * run.summary.step / max(1, run.summary.images_seen)
        every = max(1, math.floor(min(_spacings(run)) * own_steps / 10))
        name = f"{run.name}-every{every}"
        return _command(
            run, run.overrides, (f"train.evaluate_every={every}", f"run.name={name}"), new=True
        )


def _command(run: Run, overrides: Iterable[str], extra: Sequence[str], new: bool = False) -> str:
    summary = run.summary
    given = {word.partition("=")[0] for word in extra}
    words = [
        "bn-inception train",
        f"recipe={summary.recipe.replace('ensemble_', 'ensemble/')}",
        f"scale={summary.scale}",
        *([f"data={summary.data}"] if summary.data else []),
        *overrides,
    ]
    for option in run.options:
        key = option.partition("=")[0]
        # A new run has a name and a seed of its own.
        if key not in given and not (new and key in ("run.name", "run.seed")):
            words.append(option)
    if "run.seed" not in given and summary.seed and new:
        words.append(f"run.seed={summary.seed}")
    return " ".join([*words, *extra])


def _spacings(run: Run) -> list[float]:
    steps = (0.0, *run.steps)
    return [after - before for before, after in zip(steps, run.steps, strict=False)]


def _settings(runs: Sequence[Run], ensembles: Sequence[Evaluation]) -> list[_Setting]:
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
            _Setting(
                " ".join(words), first.overrides, tuple(members), tuple(others), tuple(ensembles)
            )
        )
    return settings


def _of_all_settings(
    settings: Sequence[_Setting], judged_in: Callable[[_Setting], _Finding]
) -> _Finding:
    findings = [(setting, judged_in(setting)) for setting in settings]
    tested = [(setting, finding) for setting, finding in findings if finding.holds is not None]
    if not tested:
        # The setting nearest to a verdict says what is missing.
        return min((finding for _, finding in findings), key=lambda f: len(f.commands))
    both = _both(*(finding for _, finding in tested))
    if len(settings) == 1:
        return both
    reasons = [f"{finding.reason} [{setting.name}]" for setting, finding in tested]
    return replace(both, reason="; ".join(reasons))


def _missing(setting: _Setting, recipes: Sequence[str]) -> _Finding | None:
    """What to do first, where a recipe has no run that has ended."""
    absent = [recipe for recipe in recipes if not setting.ended(recipe)]
    if not absent:
        return None
    begun = [run for run in setting.runs if run.summary.recipe in absent and not run.ended]
    going_on = [f"{run.name} is not finished ({run.summary.status.value})" for run in begun]
    recipes_begun = {run.summary.recipe for run in begun}
    without = [f"no run of {recipe}" for recipe in absent if recipe not in recipes_begun]
    return _Finding(
        None,
        "; ".join([*without, *going_on]),
        tuple(_of_run(run) for recipe in recipes for run in setting.ended(recipe)),
        tuple(setting.train(recipe) for recipe in absent),
    )


def _of_run(run: Run, says: str = "") -> Evidence:
    summary = run.summary
    parts = [says] if says else []
    if run.maximum_top1 is not None:
        parts.append(f"maximum {_percent(run.maximum_top1)} at step {run.maximum_step:,.0f}")
    if summary.diverged is not None:
        parts.append(f"diverged at step {summary.diverged.step:,} in {summary.diverged.layer}")
    elif not summary.started_learning:
        parts.append("did not start learning")
    return Evidence(run.name, str(run.path), "; ".join(parts) or "no evaluation")


# --- statements 1 to 3: steps


@dataclass(frozen=True)
class _Target:
    """Plain Inception's maximum; its step lies after `before` and is at most `step`."""

    top1: float
    before: float
    step: float
    runs: tuple[Run, ...]


def _target(setting: _Setting) -> _Target | _Finding:
    """The target, or why the plain runs set none."""
    runs = setting.ended("inception")
    evidence = tuple(map(_of_run, runs))
    for run in runs:
        if run.summary.status is RunStatus.diverged:
            reason = f"the plain network {run.name} diverged and sets no target"
        elif above_chance(run) is not True:
            reason = f"the plain network {run.name} is not above chance: reaching it shows nothing"
        else:
            continue
        return _Finding(None, reason, evidence, (setting.another_seed("inception"),))
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
            says = f"never reached {_percent(target)} in {last:,.0f} steps"
        else:
            steps.append(reached)
            says = f"{_percent(target)} at step {reached[0]:,.0f} (after {reached[1]:,.0f})"
        evidence.append(_of_run(run, says))
    if len(steps) < len(runs):
        return tuple(evidence)
    return _Reached(
        fmean(before for _, before in steps), fmean(step for step, _ in steps), tuple(evidence)
    )


def _share(setting: _Setting, recipe: str, limit: float, *, inclusive: bool) -> _Finding:
    """Whether `recipe` needs at most `limit` (or less than it) of the plain network's steps."""
    missing = _missing(setting, ("inception", recipe))
    if missing is not None:
        return missing
    target = _target(setting)
    if isinstance(target, _Finding):
        return target
    plain = tuple(_of_run(run) for run in target.runs)
    runs = setting.ended(recipe)
    reached = _reached(runs, target.top1)
    goal = f"{_percent(target.top1)} (plain Inception after {target.step:,.0f} steps)"
    if not isinstance(reached, _Reached):
        # The shortest of those that never got there says how far they were looked at.
        length = min(
            run.steps[-1] if run.steps else 0.0 for run in runs if run.reaches(target.top1) is None
        )
        diverged = any(run.summary.status is RunStatus.diverged for run in runs)
        if diverged or length >= limit * target.step:
            return _Finding(False, f"{recipe} never reached {goal}", plain + reached)
        return _Finding(
            None,
            f"{recipe} ran for {length:,.0f} steps only, without reaching {goal}",
            plain + reached,
            (setting.train(recipe, f"train.steps={math.ceil(limit * target.step)}"),),
        )
    low = reached.before / target.step
    high = reached.step / target.before if target.before else math.inf
    measured = reached.step / target.step
    upper = f"{100 * high:.1f} %" if math.isfinite(high) else "any"
    reason = f"{_percent(measured)} of the steps (bounds {100 * low:.1f} % to {upper}) to {goal}"
    below = high <= limit if inclusive else high < limit
    # The true ratio lies strictly above `low`.
    if below:
        return _Finding(True, reason, plain + reached.evidence)
    if low >= limit:
        return _Finding(False, reason, plain + reached.evidence)
    return _Finding(
        None,
        f"evaluated too seldom to tell: {reason}, the limit is {_percent(limit)}",
        plain + reached.evidence,
        (setting.more_often("inception"), setting.more_often(recipe)),
    )


def _half_the_steps(setting: _Setting) -> _Finding:
    limit = statements.STEPS_SHARE_BN_BASELINE
    return _share(setting, "bn_baseline", limit, inclusive=False)


def _seven_percent(setting: _Setting) -> _Finding:
    limit = statements.STEPS_SHARE_BN_X5 * (1 + statements.STEPS_SHARE_TOLERANCE)
    return _share(setting, "bn_x5", limit, inclusive=True)


def _slower_then_higher(setting: _Setting) -> _Finding:
    missing = _missing(setting, ("inception", "bn_x5", "bn_x30"))
    if missing is not None:
        return missing
    target = _target(setting)
    if isinstance(target, _Finding):
        return target
    x5, x30 = setting.ended("bn_x5"), setting.ended("bn_x30")
    reached_x5, reached_x30 = _reached(x5, target.top1), _reached(x30, target.top1)
    if not isinstance(reached_x5, _Reached):
        slower = _Finding(False, f"BN-x5 never reached {_percent(target.top1)}", reached_x5)
    elif not isinstance(reached_x30, _Reached):
        slower = _Finding(
            False,
            f"BN-x30 never reached {_percent(target.top1)}",
            reached_x5.evidence + reached_x30,
        )
    else:
        reason = (
            f"{_percent(target.top1)} at step {reached_x30.step:,.0f} (after "
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
        slower = _Finding(holds, reason, reached_x5.evidence + reached_x30.evidence, commands)
    return _both(slower, _higher(setting, x30, x5, 0.0))


def _higher(
    setting: _Setting, first: Sequence[Run], second: Sequence[Run], margin: float
) -> _Finding:
    """Whether the maximum of `first` lies above that of `second`, by at least `margin`."""
    names = first[0].summary.recipe, second[0].summary.recipe
    evidence = tuple(map(_of_run, (*first, *second)))
    commands = tuple(map(setting.another_seed, names))
    difference = accuracy_difference(first, second)
    if difference is None:
        return _Finding(None, "a run without an evaluation", evidence, commands)
    reason = f"maximum of {names[0]} - {names[1]}: {_points(difference)}"
    if difference.low > 0 and difference.value >= margin:
        return _Finding(True, reason, evidence)
    # Below the margin with the whole interval; for no margin, on the other side of 0.
    if difference.high < margin:
        return _Finding(False, reason, evidence)
    return _Finding(None, f"smaller than the noise: {reason}", evidence, commands)


# --- statements 4 to 6


def _margin(setting: _Setting) -> _Finding:
    missing = _missing(setting, ("inception", "bn_x30"))
    if missing is not None:
        return missing
    target = _target(setting)
    if isinstance(target, _Finding):
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
    low, _ = binomial_interval(run.maximum_top1 or 0.0, run.validation_count, level)
    return low > 1 / run.summary.classes


def _diverges_and_trains(setting: _Setting) -> _Finding:
    plain = _missing(setting, ("inception_x5",))
    if plain is None:
        runs = setting.ended("inception_x5")
        diverged = [run for run in runs if run.summary.status is RunStatus.diverged]
        plain = _Finding(
            len(diverged) == len(runs),
            f"{len(diverged)} of {len(runs)} plain networks at the fivefold rate diverged",
            tuple(map(_of_run, runs)),
        )
    return _both(plain, _trains(setting, "bn_x5"))


def _trains(setting: _Setting, recipe: str) -> _Finding:
    """Whether every run finished and is above chance."""
    missing = _missing(setting, (recipe,))
    if missing is not None:
        return missing
    runs = setting.ended(recipe)
    evidence = tuple(map(_of_run, runs))
    answers = [run.summary.status is not RunStatus.diverged and above_chance(run) for run in runs]
    trained = sum(answer is True for answer in answers)
    holds: bool | None = trained == len(runs)
    if None in answers and False not in answers:
        holds = None
    return _Finding(
        holds,
        f"{trained} of {len(runs)} runs of {recipe} finished above chance ({_chance(runs[0])})",
        evidence,
        (setting.another_seed(recipe),),
    )


def _sigmoid(setting: _Setting) -> _Finding:
    plain = _missing(setting, ("inception_sigmoid",))
    if plain is None:
        runs = setting.ended("inception_sigmoid")
        answers = [above_chance(run) for run in runs]
        at_chance = sum(answer is False for answer in answers)
        holds: bool | None = at_chance == len(runs)
        if None in answers and True not in answers:
            holds = None
        plain = _Finding(
            holds,
            f"{at_chance} of {len(runs)} plain networks with sigmoid stayed at chance "
            f"({_chance(runs[0])})",
            tuple(map(_of_run, runs)),
            (setting.another_seed("inception_sigmoid"),),
        )
    return _both(_trains(setting, "bn_x5_sigmoid"), plain)


def _chance(run: Run) -> str:
    return _percent(1 / run.summary.classes) if run.summary.classes else "unknown"


# --- statement 7: by computation


def _invariance(differences: tuple[float, float] | None) -> _Finding:
    if differences is None:
        return _Finding(None, "not computed", commands=("bn-inception claims RUN_FOLDER ...",))
    output, gradient = differences
    limit = statements.INVARIANCE_TOLERANCE
    # Not "greater than": NaN must not pass.
    return _Finding(
        output <= limit and gradient <= limit,
        f"largest relative difference: outputs {output:.1e}, gradients {gradient:.1e}",
    )


# --- statement 8: dropout


def _dropout(setting: _Setting) -> _Finding:
    missing = _missing(setting, ("bn_x5",))
    without = setting.ended("bn_x5")
    with_dropout = [
        run
        for run in setting.others
        if run.summary.recipe == "bn_x5" and _only_dropout(setting, run)
    ]
    ended = [run for run in with_dropout if run.ended]
    if missing is not None or not ended:
        unfinished = next((run for run in with_dropout if not run.ended), None)
        # One name would mean one folder.
        name = f"run.name=bn_x5-{setting.runs[0].summary.scale}-dropout0.4"
        command = (
            setting.train("bn_x5", "network.dropout=0.4", name)
            if unfinished is None
            else _command(unfinished, unfinished.overrides, ("run.resume=true",))
        )
        needed = _Finding(
            None,
            "no finished run of bn_x5 with network.dropout=0.4",
            tuple(map(_of_run, without)),
            (command,),
        )
        return needed if missing is None else _both(missing, needed)
    evidence = [
        _of_run(run, f"gap {_percent_points(gap)} ({_percent(training)} training)")
        for run in (*without, *ended)
        if (measured := _gap(run)) is not None
        for gap, training, _ in [measured]
    ]
    gaps = _gap_difference(without, ended)
    accuracy = accuracy_difference(without, ended)
    if gaps is None or accuracy is None:
        return _Finding(
            None,
            "a run without training accuracy or evaluation",
            tuple(evidence),
            (setting.another_seed("bn_x5"),),
        )
    reason = (
        f"gap without - with dropout {_points(gaps)}; maximum validation accuracy "
        f"{_points(accuracy)}"
    )
    limit = statements.GAP_TOLERANCE
    if gaps.high <= limit:
        return _Finding(True, reason, tuple(evidence))
    if gaps.low > limit and accuracy.high < 0:
        return _Finding(False, reason, tuple(evidence))
    seeds = {run.summary.seed for run in ended}
    unused = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
    name = f"run.name=bn_x5-{setting.runs[0].summary.scale}-dropout0.4-seed{unused}"
    dropout = [word for word in ended[0].overrides if word.startswith("network.dropout=")]
    return _Finding(
        None,
        f"not decided: {reason}",
        tuple(evidence),
        (
            setting.another_seed("bn_x5"),
            setting.train("bn_x5", *dropout, f"run.seed={unused}", name),
        ),
    )


def _only_dropout(setting: _Setting, run: Run) -> bool:
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


def _crops_and_ensemble(setting: _Setting) -> _Finding:
    missing = _missing(setting, ("bn_x30",))
    if missing is not None:
        members = [f"ensemble_{member}" for member in range(1, ENSEMBLE_MODELS + 1)]
        absent = tuple(setting.train(member) for member in members if not setting.ended(member))
        return replace(missing, commands=missing.commands + absent)
    run = setting.ended("bn_x30")[0]
    single, multi = _evaluation_pair(run)
    commands = [
        f"bn-inception evaluate run={run.path} crops={crops}"
        for crops, there in (("single", single), ("144", multi))
        if there is None
    ]
    if single is None or multi is None:
        crops = _Finding(
            None,
            f"{run.name} has no evaluation with a single crop and with 144 crops",
            (_of_run(run),),
            tuple(commands),
        )
    else:
        crops = _lower_error(multi, single, "144 crops", "single crop", run.name)
    return _both(crops, _ensemble(setting, run, multi))


def _evaluation_pair(run: Run) -> tuple[Evaluation | None, Evaluation | None]:
    """Single-crop and 144-crop evaluations with the same statistics, population ones preferred."""
    by_kind = {
        (evaluation.crops, evaluation.statistics): evaluation
        for evaluation in run.evaluations
        if evaluation.models == 1
    }
    pairs = [
        (by_kind.get((1, statistics)), by_kind.get((144, statistics)))
        for statistics in ("population", "running", None)
    ]
    return max(pairs, key=lambda pair: sum(entry is not None for entry in pair))


def _ensemble(setting: _Setting, run: Run, multi: Evaluation | None) -> _Finding:
    candidates = [
        entry
        for entry in setting.ensembles
        if entry.models == ENSEMBLE_MODELS
        and entry.crops == 144
        and entry.count == (run.validation_count or entry.count)
    ]
    if not candidates:
        members = [f"ensemble_{member}" for member in range(1, ENSEMBLE_MODELS + 1)]
        runs = [next(iter(setting.ended(member)), None) for member in members]
        commands = [
            setting.train(member) for member, run in zip(members, runs, strict=True) if run is None
        ]
        folders = [
            str(setting.runs[0].path.parent / f"{member}-...") if run is None else str(run.path)
            for member, run in zip(members, runs, strict=True)
        ]
        commands += [
            f"bn-inception evaluate run={folder} crops=144"
            for folder, run in zip(folders, runs, strict=True)
            if run is None or not any(entry.crops == 144 for entry in run.evaluations)
        ]
        commands.append(f"bn-inception ensemble {' '.join(folders)} output=ensemble.npz")
        return _Finding(
            None,
            "no evaluation of an ensemble of six networks with 144 crops was given",
            (),
            tuple(commands),
        )
    ensemble = min(candidates, key=lambda entry: entry.top5_error)
    if multi is None:
        return _Finding(
            None, f"{run.name} has no evaluation with 144 crops", (_of_evaluation(ensemble),)
        )
    lower = _lower_error(ensemble, multi, "six networks", "one network", ensemble.path.name)
    if run.summary.scale != "paper" or run.summary.data != "imagenet":
        return replace(lower, reason=f"{lower.reason}; 4.9 % itself is not tested at this scale")
    return _both(lower, _error_value(ensemble))


def _error_value(ensemble: Evaluation) -> _Finding:
    limit = FIGURE_4[-1].top5_error + statements.TOP5_ERROR_TOLERANCE
    low, _ = ensemble.top5_interval
    holds = True if ensemble.top5_error <= limit else False if low > limit else None
    return _Finding(
        holds,
        f"top-5 error {100 * ensemble.top5_error:.2f} % against the paper's 4.9 %",
        (_of_evaluation(ensemble),),
    )


def _lower_error(
    first: Evaluation, second: Evaluation, first_name: str, second_name: str, where: str
) -> _Finding:
    difference = difference_of_rates(second.top5_error, first.top5_error, second.count, first.count)
    reason = f"top-5 error of {second_name} - {first_name}: {_points(difference)}"
    evidence = (_of_evaluation(second), _of_evaluation(first))
    if difference.low > 0:
        return _Finding(True, reason, evidence)
    if difference.high < 0:
        return _Finding(False, reason, evidence)
    return _Finding(
        None,
        f"smaller than the noise: {reason} ({where})",
        evidence,
        ("bn-inception claims RUN_FOLDER ...   # with evaluations on more held-out images",),
    )


def _of_evaluation(evaluation: Evaluation) -> Evidence:
    low, high = evaluation.top5_interval
    return Evidence(
        evaluation.path.name,
        str(evaluation.path),
        f"{evaluation.models} network{'s' if evaluation.models > 1 else ''}, {evaluation.crops} "
        f"crop{'s' if evaluation.crops > 1 else ''}: top-1 error {100 * evaluation.top1_error:.2f} "
        f"%, top-5 error {100 * evaluation.top5_error:.2f} % ({100 * low:.2f} to {100 * high:.2f}), "
        f"{evaluation.count:,} images",
    )


_JUDGES: dict[int, Callable[[_Setting], _Finding]] = {
    1: _half_the_steps,
    2: _seven_percent,
    3: _slower_then_higher,
    4: _margin,
    5: _diverges_and_trains,
    6: _sigmoid,
    8: _dropout,
    9: _crops_and_ensemble,
}


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _percent_points(fraction: float) -> str:
    return f"{100 * fraction:.1f} points"


def _points(difference: Difference) -> str:
    return (
        f"{100 * difference.value:+.2f} points "
        f"({100 * difference.low:+.2f} to {100 * difference.high:+.2f}; {difference.source})"
    )
