"""What each statement of `bn_inception.paper` measures in a setting, and when that decides."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

import numpy as np

from bn_inception.paper import statements
from bn_inception.paper.results import (
    ENSEMBLE_MODELS,
    FIGURE_4,
    IMAGENET_VALIDATION_IMAGES,
    MINI_BATCH,
)
from bn_inception.paper.statements import Need
from bn_inception.record.predictions import read_predictions
from bn_inception.record.summary import RunStatus
from bn_inception.report.curves import Curves, learned_limit, target_of, tenth
from bn_inception.report.estimates import (
    Estimate,
    difference,
    difference_of_pairs,
    mean_plateau,
    moderated,
    percent,
    plateau_difference,
    points,
    run_variance,
    seed_variance,
    share_ratios,
    steps_ratio,
    without_each,
)
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.runs import Run
from bn_inception.report.settings import Setting

TOP = 5
PLAIN = Need("inception")


class Decision(StrEnum):
    """What became of a statement, or of a part of it."""

    holds = "holds"
    does_not_hold = "does not hold"
    undecided = "undecided"
    not_tested = "not tested"


@dataclass(frozen=True)
class Part:
    """One thing that a statement asserts, decided; `reason` is a clause with the numbers."""

    decision: Decision
    reason: str


def decide(low: float, high: float, limit: float, *, above: bool) -> Decision:
    """Whether an interval lies on the right side of a limit, on the wrong one, or on both."""
    if low > limit:
        return Decision.holds if above else Decision.does_not_hold
    if high < limit:
        return Decision.does_not_hold if above else Decision.holds
    return Decision.undecided


def together(decisions: Sequence[Decision]) -> Decision:
    """All must hold; one that does not decides, and what is untested leaves it open."""
    order = (Decision.does_not_hold, Decision.not_tested, Decision.undecided)
    return next((decision for decision in order if decision in decisions), Decision.holds)


def paired(setting: Setting, *needs: Need) -> list[Curves] | Part:
    """The curves of the seeds that all of them have."""
    found = [setting.curves(need) for need in needs]
    for need, curves in zip(needs, found, strict=True):
        if curves is None:
            return Part(Decision.not_tested, f"{need} has no evaluation, or unknown classes")
    known = [curves for curves in found if curves is not None]
    seeds = set.intersection(*(set(curves.seeds) for curves in known))
    if not seeds:
        names = " and ".join(map(str, needs))
        return Part(Decision.not_tested, f"no seed that {names} have in common")
    return [curves.of(tuple(sorted(seeds))) for curves in known]


# --- statements 1 to 4: steps and plateaus


def _steps_share(recipe: str, limit: float) -> Callable[[Setting], list[Part]]:
    def measure(setting: Setting) -> list[Part]:
        curves = paired(setting, Need(recipe), PLAIN)
        plain = setting.curves(PLAIN)
        if isinstance(curves, Part) or plain is None:
            return [curves] if isinstance(curves, Part) else []
        ratio = steps_ratio(curves[0], curves[1], plain)
        beside = share_ratios(curves[0], curves[1], plain)
        others = ", ".join("never" if other is None else percent(other) for other in beside)
        reason = (
            f"{recipe} needs {ratio_in_words(ratio)} of the plain network's steps to "
            f"{percent(float(target_of(plain.top1)))}, the limit is {100 * limit:g} % "
            f"(to 80, 90 and 95 % of its plateau: {others})"
        )
        return [Part(decide(ratio.low, ratio.high, limit, above=False), reason)]

    return measure


def ratio_in_words(ratio: Estimate) -> str:
    """Such as "40.0 % (33.1 % to 48.4 %; 3 seeds)"."""
    if math.isinf(ratio.high):
        never = "a run never gets there"
        return f"more than {percent(ratio.value)} (at least {percent(ratio.low)}; {never})"
    return f"{percent(ratio.value)} ({percent(ratio.low)} to {percent(ratio.high)}; {ratio.source})"


def _slower_then_higher(setting: Setting) -> list[Part]:
    curves = paired(setting, Need("bn_x30"), Need("bn_x5"))
    plain = setting.curves(PLAIN)
    if isinstance(curves, Part) or plain is None:
        return [curves] if isinstance(curves, Part) else []
    ratio = steps_ratio(curves[0], curves[1], plain, statements.START_SHARE)
    goal = percent(float(target_of(plain.top1, statements.START_SHARE)))
    slower = f"BN-x30 needs {ratio_in_words(ratio)} of BN-x5's steps to {goal}"
    return [
        Part(decide(ratio.low, ratio.high, 1.0, above=True), slower),
        _higher(curves, ("BN-x30", "BN-x5"), 0.0),
    ]


def _margin(setting: Setting) -> list[Part]:
    curves = paired(setting, Need("bn_x30"), PLAIN)
    if isinstance(curves, Part):
        return [curves]
    return [_higher(curves, ("BN-x30", "plain Inception"), statements.SUBSTANTIAL_MARGIN)]


def _higher(curves: Sequence[Curves], names: tuple[str, str], limit: float) -> Part:
    found = plateau_difference(curves[0], curves[1])
    reason = f"plateau of {names[0]} - {names[1]}: {points(found)}"
    if limit:
        reason += f", the limit is {100 * limit:.1f}"
    return Part(decide(found.low, found.high, limit, above=True), reason)


# --- statements 5 and 6: who learns


def _diverges_and_trains(setting: Setting) -> list[Part]:
    runs = setting.of(Need("inception_x5"))
    diverged = sum(run.summary.status is RunStatus.diverged for run in runs)
    decision = Decision.undecided
    if diverged in (0, len(runs)):
        decision = Decision.holds if diverged else Decision.does_not_hold
    reason = f"{diverged} of {len(runs)} plain networks at five times the rate diverged"
    return [Part(decision, reason), _all_learn(setting, "bn_x5", True)]


def _sigmoid(setting: Setting) -> list[Part]:
    return [
        _all_learn(setting, "bn_x5_sigmoid", True),
        _all_learn(setting, "inception_sigmoid", False),
    ]


def _all_learn(setting: Setting, recipe: str, wanted: bool) -> Part:
    """Whether the mean plateau lies above twice chance (`wanted`) or below, and no seed's not."""
    curves = setting.curves(Need(recipe))
    if curves is None:
        return Part(Decision.not_tested, f"{recipe} has no evaluation, or unknown classes")
    found, limit = mean_plateau(curves), learned_limit(curves.chance)
    reason = (
        f"plateau of {recipe}: {percent(found.value)} ({percent(found.low)} to "
        f"{percent(found.high)}; {found.source}), the limit is {percent(limit)}"
    )
    decision = decide(found.low, found.high, limit, above=wanted)
    odd = int(((curves.plateaus > limit) != wanted).sum())
    if odd and decision is Decision.holds:
        # The mean hides a seed that did otherwise.
        return Part(Decision.undecided, f"{reason}, and {odd} of {len(curves.seeds)} runs did not")
    return Part(decision, reason)


# --- statement 7: by computation


def invariance(differences: tuple[float, float] | None) -> Part:
    """Statement 7, from the relative differences of outputs and gradients; None: not computed."""
    if differences is None:
        return Part(Decision.not_tested, "not computed")
    output, gradient = differences
    limit = statements.INVARIANCE_TOLERANCE
    # Not "greater than": NaN must not pass.
    right = output <= limit and gradient <= limit
    reason = f"largest relative difference: outputs {output:.1e}, gradients {gradient:.1e}"
    return Part(Decision.holds if right else Decision.does_not_hold, reason)


# --- statement 8: dropout


def _dropout(setting: Setting) -> list[Part]:
    needs = Need("bn_x5"), Need("bn_x5", "network.dropout=0.4")
    curves = paired(setting, *needs)
    if isinstance(curves, Part):
        return [curves]
    measured = []
    for need, own in zip(needs, curves, strict=True):
        gaps = [_gap(run) for run in setting.of(need) if run.summary.seed in own.seeds]
        known = [gap for gap in gaps if gap is not None]
        if len(known) < len(gaps):
            return [Part(Decision.not_tested, f"a run of {need} without training accuracy")]
        measured.append(known)
    variances = [
        run_variance(own) + fmean(variance for _, variance in gaps)
        for own, gaps in zip(curves, measured, strict=True)
    ]
    values = [[gap for gap, _ in gaps] for gaps in measured]
    gap = difference(values[0], values[1], (variances[0], variances[1]))
    accuracy = plateau_difference(curves[0], curves[1])
    decision = decide(gap.low, gap.high, statements.GAP_TOLERANCE, above=False)
    if decision is Decision.does_not_hold and not accuracy.high < 0:
        # A wider gap at no lower an accuracy is no harm.
        decision = Decision.undecided
    reason = f"gap without - with dropout {points(gap)}, the limit is 1.0; plateau "
    return [Part(decision, reason + points(accuracy))]


def _gap(run: Run) -> tuple[float, float] | None:
    """Training accuracy over the last tenth of evaluations minus the plateau, and the variance
    of that training accuracy.
    """
    width = tenth(len(run.steps))
    end, begin = run.steps[-1], (0.0, *run.steps)[-width - 1]
    training = [top1 for step, top1 in run.training if begin < step <= end]
    if not training or run.plateau is None:
        return None
    mean = fmean(training)
    variance = mean * (1 - mean) / ((end - begin) * MINI_BATCH) + seed_variance(mean, 0.0)
    return mean - run.plateau, variance


# --- statement 9: crops and ensembles


def _crops_and_ensemble(setting: Setting) -> list[Part]:
    evaluated = [
        pair for run in setting.of(Need("bn_x30")) if (pair := _evaluation_pair(run)) is not None
    ]
    if not evaluated:
        reason = "no run of bn_x30 has a single crop and 144 with the same statistics"
        return [Part(Decision.not_tested, reason)]
    crops = _lower_error([(single, multi) for single, multi in evaluated], seeds=False)
    reason = f"top-5 error of a single crop - 144: {points(crops)}"
    parts = [Part(decide(crops.low, crops.high, 0.0, above=True), reason)]
    networks = [multi for _, multi in evaluated]
    alike = [
        entry
        for entry in setting.ensembles
        if entry.models == ENSEMBLE_MODELS and entry.crops == 144 and entry.like(networks[0])
    ]
    if not alike:
        reason = (
            "no ensemble of six networks was evaluated with 144 crops on the images, at the image "
            "size and with the BN statistics of bn_x30"
        )
        return [*parts, Part(Decision.not_tested, reason)]
    ensemble = min(alike, key=lambda entry: entry.path)
    gain = _lower_error([(network, ensemble) for network in networks], seeds=True)
    reason = f"of one network - six: {points(gain)}"
    parts.append(Part(decide(gain.low, gain.high, 0.0, above=True), reason))
    first = setting.runs[0].summary
    if first.scale == "paper" and first.data == "imagenet":
        return [*parts, _error_value(ensemble)]
    return [*parts[:-1], Part(parts[-1].decision, f"{reason}; 4.9 % is tested at scale=paper")]


def _evaluation_pair(run: Run) -> tuple[Evaluation, Evaluation] | None:
    """Single-crop and 144-crop evaluations with the same statistics, population ones preferred."""
    kinds = {(entry.crops, entry.statistics): entry for entry in run.own_evaluations}
    for statistics in ("population", "running", None):
        pair = kinds.get((1, statistics)), kinds.get((144, statistics))
        if pair[0] is not None and pair[1] is not None:
            return pair[0], pair[1]
    return None


def _lower_error(pairs: Sequence[tuple[Evaluation, Evaluation]], *, seeds: bool) -> Estimate:
    """Mean of first minus second top-5 error; `seeds`: the first ones' scatter between seeds too.

    The images are the same for all pairs: more of these are not more images.
    """
    found = [_error_difference(one, other) for one, other in pairs]
    values = np.array([value for value, _ in found])
    images = fmean(variance for _, variance in found)
    source = f"{pairs[0][0].count:,} images"
    if not seeds:
        return moderated(float(values.mean()), 0.0, None, images, source)
    between = seed_variance(fmean(one.top5_error for one, _ in pairs), 0.0)
    rest = without_each(values)
    return moderated(float(values.mean()), between / len(values), rest, images)


def _error_difference(first: Evaluation, second: Evaluation) -> tuple[float, float]:
    """Top-5 error of `first` minus that of `second`, and its variance over images.

    Image by image where the predictions lie beside both, else as of independent images.
    """
    files = [entry.path.with_suffix(".npz") for entry in (first, second)]
    if all(file.is_file() for file in files):
        one, other = map(read_predictions, files)
        if np.array_equal(one.ids, other.ids) and np.array_equal(one.labels, other.labels):
            wrong, other_wrong = one.ranks() >= TOP, other.ranks() >= TOP
            only = int((wrong & ~other_wrong).sum()), int((other_wrong & ~wrong).sum())
            return difference_of_pairs(*only, len(one))
    variance = sum(e.top5_error * (1 - e.top5_error) / e.count for e in (first, second))
    return first.top5_error - second.top5_error, variance


def _error_value(ensemble: Evaluation) -> Part:
    reason = f"the ensemble's top-5 error {100 * ensemble.top5_error:.2f} % against 4.9 %"
    if ensemble.count != IMAGENET_VALIDATION_IMAGES:
        return Part(Decision.not_tested, f"{reason}, but on {ensemble.count:,} images")
    limit = FIGURE_4[-1].top5_error + statements.TOP5_ERROR_TOLERANCE
    return Part(decide(*ensemble.top5_interval, limit, above=False), reason)


MEASURES: dict[int, Callable[[Setting], list[Part]]] = {
    1: _steps_share("bn_baseline", statements.STEPS_SHARE_BN_BASELINE),
    2: _steps_share("bn_x5", statements.STEPS_SHARE_BN_X5),
    3: _slower_then_higher,
    4: _margin,
    5: _diverges_and_trains,
    6: _sigmoid,
    8: _dropout,
    9: _crops_and_ensemble,
}
"""By the statement's number; 7 needs no run."""
