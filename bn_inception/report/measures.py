"""What the parts of a statement measure, and when that decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

import numpy as np

from bn_inception.paper import results
from bn_inception.record.predictions import TOP, read_predictions
from bn_inception.record.summary import RunStatus
from bn_inception.report import estimates
from bn_inception.report.curves import (
    Array,
    Curves,
    curves_of,
    learned_limit,
    paired,
    percent,
    plateau_of,
    target_of,
    tenth,
)
from bn_inception.report.estimates import Estimate, in_words, points
from bn_inception.report.runs import Evaluation, Run
from bn_inception.report.settings import PLAIN, Need, Setting


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


class NotTested(Exception):
    """Why runs that are there show nothing, a clause."""


@dataclass(frozen=True)
class Measure:
    """One thing that a statement asserts.

    `how` decides it where `needs` are there, in the order in which it takes them, by `limit`, a
    fraction or a ratio. It raises NotTested where they show nothing.
    """

    how: "Callable[[Setting, tuple[Need, ...], float], Part]"
    needs: tuple[Need, ...] = ()
    limit: float = 0.0

    def decide(self, setting: Setting) -> Part:
        """Decide it in a setting that has what it needs."""
        try:
            return self.how(setting, self.needs, self.limit)
        except NotTested as reason:
            return Part(Decision.not_tested, str(reason))


def decide(found: Estimate, limit: float, *, above: bool) -> Decision:
    """Whether an interval lies on the right side of a limit, on the wrong one, or on both."""
    if found.low > limit:
        return Decision.holds if above else Decision.does_not_hold
    if found.high < limit:
        return Decision.does_not_hold if above else Decision.holds
    return Decision.undecided


def together(decisions: Sequence[Decision]) -> Decision:
    """All must hold; one that does not decides, and what is untested leaves it open."""
    order = (Decision.does_not_hold, Decision.not_tested, Decision.undecided)
    return next((decision for decision in order if decision in decisions), Decision.holds)


def _curves(setting: Setting, need: Need) -> Curves:
    curves = curves_of(setting.of(need))
    if curves is None:
        raise NotTested(f"{need} has no evaluation, or unknown classes")
    return curves


def _pair(setting: Setting, first: Need, second: Need) -> tuple[Curves, Curves]:
    pair = paired(_curves(setting, first), _curves(setting, second))
    if pair is None:
        raise NotTested(f"no seed that {first} and {second} have in common")
    return pair


def steps_share(setting: Setting, needs: tuple[Need, ...], limit: float) -> Part:
    """Steps of a network (second need) relative to the plain one's (first), below the limit."""
    plain, own = needs
    pair, whole = _pair(setting, own, plain), _curves(setting, plain)
    ratio = estimates.steps_ratio(*pair, whole)
    beside = estimates.share_ratios(*pair, whole)
    others = ", ".join("never" if other is None else percent(other) for other in beside)
    reason = (
        f"{own} needs {in_words(ratio)} of the plain network's steps to "
        f"{percent(float(target_of(whole.top1)))}, the limit is {100 * limit:g} % "
        f"(to 80, 90 and 95 % of its plateau: {others})"
    )
    return Part(decide(ratio, limit, above=False), reason)


def slower_start(setting: Setting, needs: tuple[Need, ...], limit: float) -> Part:
    """Steps of the third need relative to the second's, to a share of the first's plateau."""
    plain, faster, own = needs
    whole = _curves(setting, plain)
    ratio = estimates.steps_ratio(*_pair(setting, own, faster), whole, limit)
    goal = percent(float(target_of(whole.top1, limit)))
    reason = f"{_title(own)} needs {in_words(ratio)} of {_title(faster)}'s steps to {goal}"
    return Part(decide(ratio, 1.0, above=True), reason)


def higher(setting: Setting, needs: tuple[Need, ...], limit: float) -> Part:
    """The plateau of the second need minus that of the first, above the limit."""
    lower, own = needs
    found = estimates.plateau_difference(*_pair(setting, own, lower))
    reason = f"plateau of {_title(own)} - {_title(lower)}: {points(found)}"
    reason += f", the limit is {100 * limit:.1f}" if limit else ""
    return Part(decide(found, limit, above=True), reason)


def _title(need: Need) -> str:
    return "plain Inception" if need == PLAIN else results.FIGURE_3[need.recipe].title


def diverges(setting: Setting, needs: tuple[Need, ...], _: float) -> Part:
    """All runs of plain networks at five times the rate, and none where it does not hold."""
    runs = setting.of(needs[0])
    diverged = sum(run.summary.status is RunStatus.diverged for run in runs)
    reason = f"{diverged} of {len(runs)} plain networks at five times the rate diverged"
    if 0 < diverged < len(runs):
        return Part(Decision.undecided, reason)
    return Part(Decision.holds if diverged else Decision.does_not_hold, reason)


def learns(setting: Setting, needs: tuple[Need, ...], _: float, *, wanted: bool = True) -> Part:
    """Whether the mean plateau lies above twice chance (`wanted`) or below, and no seed's not."""
    (need,) = needs
    curves = _curves(setting, need)
    found, limit = estimates.mean_plateau(curves), learned_limit(curves.chance)
    reason = f"plateau of {need}: {in_words(found)}, the limit is {percent(limit)}"
    decision = decide(found, limit, above=wanted)
    odd = int(((curves.plateaus > limit) != wanted).sum())
    if odd and decision is Decision.holds:
        # The mean hides a seed that did otherwise.
        return Part(Decision.undecided, f"{reason}, and {odd} of {len(curves.seeds)} runs did not")
    return Part(decision, reason)


def invariant(setting: Setting, _: tuple[Need, ...], limit: float) -> Part:
    """The relative differences of outputs and gradients are at most the limit."""
    if setting.differences is None:
        raise NotTested("not computed")
    output, gradient = setting.differences
    # Not "greater than": NaN must not pass.
    right = output <= limit and gradient <= limit
    reason = f"largest relative difference: outputs {output:.1e}, gradients {gradient:.1e}"
    return Part(Decision.holds if right else Decision.does_not_hold, reason)


def narrower_gap(setting: Setting, needs: tuple[Need, ...], limit: float) -> Part:
    """Training minus held-out accuracy of the first need minus that of the second: below it."""
    pair = _pair(setting, needs[0], needs[1])
    gaps, variances = [], []
    for need, own in zip(needs, pair, strict=True):
        found = [_gap(run) for run in setting.of(need) if run.summary.seed in own.seeds]
        if None in found:
            raise NotTested(f"a run of {need} without training accuracy")
        of_seeds, of_training = zip(*filter(None, found), strict=True)
        gaps.append(of_seeds)
        variances.append(estimates.run_variance(own) + fmean(of_training))
    gap = estimates.mean(np.subtract(*gaps), sum(variances))
    accuracy = estimates.plateau_difference(*pair)
    decision = decide(gap, limit, above=False)
    if decision is Decision.does_not_hold and not accuracy.high < 0:
        # A wider gap at no lower an accuracy is no harm.
        decision = Decision.undecided
    reason = f"gap without - with dropout {points(gap)}, the limit is {100 * limit:.1f}; plateau "
    return Part(decision, reason + points(accuracy))


def _gap(run: Run) -> tuple[float, float] | None:
    """Training accuracy over the last tenth of evaluations minus the plateau, and the variance
    of that training accuracy.
    """
    level = plateau_of(run)
    if level is None:
        return None
    end, begin = run.steps[-1], (0.0, *run.steps)[-tenth(len(run.steps)) - 1]
    training = [top1 for step, top1 in run.training if begin < step <= end]
    if not training:
        return None
    mean = fmean(training)
    images = (end - begin) * results.MINI_BATCH
    return mean - level, mean * (1 - mean) / images + estimates.seed_variance(mean, 0.0)


def crops_better(setting: Setting, needs: tuple[Need, ...], limit: float) -> Part:
    """The top-5 error of a single crop minus that of 144, above the limit."""
    pairs = _single_and_144(setting, needs[0])
    values, images = _lower_error(pairs)
    source = f"{pairs[0][0].count:,} images"
    found = estimates.moderated(float(values.mean()), 0.0, None, images, source)
    reason = f"top-5 error of a single crop - 144: {points(found)}"
    return Part(decide(found, limit, above=True), reason)


def ensemble_better(setting: Setting, needs: tuple[Need, ...], limit: float) -> Part:
    """The top-5 error of one network minus that of six, 144 crops each, above the limit.

    The networks' scatter between seeds counts too.
    """
    networks, ensemble = _ensemble(setting, needs[0])
    values, images = _lower_error([(network, ensemble) for network in networks])
    between = estimates.seed_variance(fmean(network.top5_error for network in networks), 0.0)
    found = estimates.mean(values, between, images)
    return Part(decide(found, limit, above=True), f"of one network - six: {points(found)}")


def ensemble_error(setting: Setting, needs: tuple[Need, ...], limit: float) -> Part:
    """The top-5 error of six, below the limit: at the paper's scale and classes only."""
    _, ensemble = _ensemble(setting, needs[0])
    first = setting.runs[0].summary
    if (first.scale, first.classes) != ("paper", 1000):
        return Part(Decision.holds, "4.9 % is tested at scale=paper")
    reason = f"the ensemble's top-5 error {100 * ensemble.top5_error:.2f} % against 4.9 %"
    if ensemble.count != results.IMAGENET_VALIDATION_IMAGES:
        raise NotTested(f"{reason}, but on {ensemble.count:,} images")
    found = Estimate(ensemble.top5_error, *ensemble.top5_interval, reason)
    return Part(decide(found, limit, above=False), reason)


def _single_and_144(setting: Setting, need: Need) -> list[tuple[Evaluation, Evaluation]]:
    """Of each run both, with the same statistics, population ones preferred."""
    found = []
    for run in setting.of(need):
        kinds = {(entry.crops, entry.statistics): entry for entry in run.own_evaluations}
        both = [
            (kinds["single", statistics], kinds["144", statistics])
            for statistics in ("population", "running", None)
            if ("single", statistics) in kinds and ("144", statistics) in kinds
        ]
        found += both[:1]
    if not found:
        raise NotTested(f"no run of {need} has a single crop and 144 with the same statistics")
    return found


def _ensemble(setting: Setting, need: Need) -> tuple[list[Evaluation], Evaluation]:
    """144 crops of each network alone, and of six of them on the same images."""
    networks = [multi for _, multi in _single_and_144(setting, need)]
    six = [entry for entry in setting.ensembles if entry.models == results.ENSEMBLE_MODELS]
    alike = [entry for entry in six if entry.like(networks[0])]
    if not alike:
        raise NotTested(
            "no ensemble of six networks was evaluated with 144 crops on the images, at the image "
            f"size and with the BN statistics of {need}"
        )
    return networks, min(alike, key=lambda entry: entry.path)


def _lower_error(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> tuple[Array, float]:
    """First minus second top-5 error of each pair, and the variance of their mean over images.

    The images are the same for all pairs: more of these are not more images.
    """
    values, variances = zip(*(_error_difference(*pair) for pair in pairs), strict=True)
    return np.array(values), fmean(variances)


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
            return estimates.difference_of_pairs(*only, len(one))
    variance = sum(e.top5_error * (1 - e.top5_error) / e.count for e in (first, second))
    return first.top5_error - second.top5_error, variance
