"""BN Figure 3 for a user's runs, beside the paper's numbers. Pure: runs in, rows out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from bn_inception.errors import UserError
from bn_inception.paper.results import CONTROLS, FIGURE_3, MINI_BATCH, TARGET_TOP1, RecipeResult
from bn_inception.record.summary import RunStatus
from bn_inception.report import estimates
from bn_inception.report.curves import SHARES, Target, curves_of, paired, target_by
from bn_inception.report.estimates import Estimate
from bn_inception.report.runs import Evaluation, Run, distinct_seeds, grouped


class Kind(StrEnum):
    """What a row is shown among.

    In the baseline's setting one of Figure 3's recipes, or of section 4.2.2's controls; a network
    of section 4.2.3's ensemble; or something else was changed too.
    """

    recipe = "recipe"
    control = "control"
    member = "member"
    change = "change"


@dataclass(frozen=True)
class Row:
    """The runs that differ in their seed alone, by seed; none of a recipe that was not run.

    Attributes:
        title: the recipe's, with what was set otherwise in these runs and not in all.
        plateau: top-1, a fraction; None without an evaluation.
        steps: image-equivalent ones to the target, geometric mean; None unless all reached it.
        ratio: steps relative to the baseline's; None without a seed in common.
        shares: the same to 80, 90 and 95 % of the baseline's plateau; None where a run never did.
        difference: of the plateau to the baseline's; None like `ratio`, and for the baseline.
        paper, paper_ratio: its row of the paper's Figure 3, and that of the steps there, if any.
    """

    title: str
    recipe: str
    kind: Kind
    runs: tuple[Run, ...] = ()
    plateau: Estimate | None = None
    steps: float | None = None
    ratio: Estimate | None = None
    shares: tuple[float | None, ...] = (None,) * len(SHARES)
    difference: Estimate | None = None
    is_baseline: bool = False
    outcome: str = ""
    paper: RecipeResult | None = None
    paper_ratio: float | None = None


@dataclass(frozen=True)
class Figure3:
    """Steps to the baseline's plateau less a point, for every recipe in the paper's order.

    Attributes:
        baseline: title of the row that sets the target.
        target: top-1 accuracy, a fraction; None if the baseline has no evaluation.
        shared: what all rows share, in words.
        notes: what a reader must know to judge the numbers, a sentence each.
        fault: why steps to the target show nothing; None where they do.
    """

    baseline: str
    target: float | None
    shared: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    fault: str | None = None

    def of(self, *kinds: Kind) -> list[Row]:
        """The rows of some kinds."""
        return [row for row in self.rows if row.kind in kinds]


def compare(runs: Sequence[Run], baseline: str = "inception") -> Figure3:
    """Compare runs as the paper's Figure 3 does, by the rules of docs/statements.md.

    Of equal seeds the most often evaluated counts. The `baseline`, a run's name or a recipe (else a
    UserError), sets the target with all its seeds, in the setting with most runs.
    """
    # Runs that go on stand for themselves only where no run of theirs is over.
    groups = []
    for found in grouped(distinct_seeds(runs), lambda run: run.group):
        counted = [r for r in found if r.ended] or [r for r in found if r.steps] or found
        groups.append(sorted(counted, key=lambda run: run.summary.seed))
    reference = max(_candidates(runs, groups, baseline), key=len)
    target = target_by(reference)
    said = [_setting_in_words(group[0]) for group in groups]
    shared = [word for word in said[0] if all(word in words for words in said)]
    titles = [
        " ".join([_name(group[0]), *(word for word in words if word not in shared)])
        for group, words in zip(groups, said, strict=True)
    ]
    rows = []
    for group, title in zip(groups, titles, strict=True):
        own = title if titles.count(title) == 1 else f"{title} ({group[0].name})"
        rows.append(_row(group, own, reference, target))
    order = {recipe: position for position, recipe in enumerate([*FIGURE_3, *CONTROLS])}
    rows.sort(key=lambda row: (order.get(row.recipe, len(order)), row.recipe, row.title))
    return Figure3(
        baseline=next(row.title for row in rows if row.is_baseline),
        target=target.level,
        shared=tuple(shared),
        rows=tuple(rows),
        notes=tuple(_notes(runs, reference, target)),
        fault=target.fault,
    )


def _candidates(runs: Sequence[Run], groups: Sequence[list[Run]], baseline: str) -> list[list[Run]]:
    named = [run.group for run in runs if baseline in (run.name, str(run.path))]
    found = [group for group in groups if group[0].group in named]
    found = found or [group for group in groups if group[0].summary.recipe == baseline]
    if not found:
        given = ", ".join(f"{run.name} ({run.summary.recipe})" for run in runs)
        raise UserError(
            f"baseline: no run is named {baseline!r} or has this recipe; name one of {given}"
        )
    return found


def _name(run: Run) -> str:
    recipe = run.summary.recipe
    return FIGURE_3[recipe].title if recipe in FIGURE_3 else recipe


def _setting_in_words(run: Run) -> list[str]:
    scale, data, classes, fingerprint, precision = run.setting
    words = [f"scale={scale}", str(precision), *run.overrides]
    words += [] if data is None else [f"data={data}"]
    words += [] if classes is None else [f"{classes} classes"]
    return words + ([] if fingerprint is None else [f"images {str(fingerprint)[:8]}"])


def _row(runs: list[Run], title: str, reference: list[Run], target: Target) -> Row:
    own, plain, recipe = curves_of(runs), target.plain, runs[0].summary.recipe
    steps = ratio = difference = None
    shares = Row.shares
    # Every curve begins at chance.
    shows = plain is not None and (target.level or 0.0) > plain.chance
    reached = 0 if shows else None
    if own is not None and plain is not None:
        pair = None if runs is reference else paired(own, plain)
        if pair is not None:
            difference = estimates.plateau_difference(*pair)
        if shows:
            at, arrived = target.steps(own)
            reached = int(arrived.sum())
            steps = math.exp(float(np.log(at).mean())) if arrived.all() else None
        if shows and pair is not None:
            ratio = estimates.steps_ratio(*pair, plain)
            shares = estimates.share_ratios(*pair, plain)
    return Row(
        title=title,
        recipe=recipe,
        kind=_kind(runs[0], reference[0]),
        runs=tuple(runs),
        plateau=None if own is None else estimates.mean_plateau(own),
        steps=steps,
        ratio=ratio,
        shares=shares,
        difference=difference,
        is_baseline=runs is reference,
        outcome=_outcome(runs, runs is reference, reached),
        paper=FIGURE_3.get(recipe),
        paper_ratio=_paper_ratio(recipe, reference[0].summary.recipe),
    )


def _kind(run: Run, reference: Run) -> Kind:
    recipe = run.summary.recipe
    if recipe.startswith("ensemble_"):
        return Kind.member
    if run.group[1:] != reference.group[1:] or recipe not in (*FIGURE_3, *CONTROLS):
        return Kind.change
    return Kind.recipe if recipe in FIGURE_3 else Kind.control


def _paper_ratio(recipe: str, baseline: str) -> float | None:
    """Its steps in the paper relative to plain Inception's: the only target of the paper."""
    steps = FIGURE_3[recipe].steps_to_72_2 if recipe in FIGURE_3 else None
    plain = FIGURE_3["inception"].steps_to_72_2
    return steps / plain if baseline == "inception" and steps and plain else None


def _outcome(runs: Sequence[Run], is_baseline: bool, reached: int | None) -> str:
    parts = []
    if not any(run.steps for run in runs):
        parts.append("no evaluation")
    elif is_baseline:
        parts.append("sets the target")
    elif reached is not None:
        many = "" if len(runs) == 1 or reached in (0, len(runs)) else f"{reached} of {len(runs)} "
        yet = "never reached the target" if runs[0].ended else "target not reached yet"
        parts.append(f"{many}reached the target" if reached else yet)
    for run in runs:
        summary, name = run.summary, f"{run.name} " if len(runs) > 1 else ""
        if not summary.started_learning:
            parts.append(f"{name}did not start learning")
        if summary.diverged is not None:
            where = summary.diverged
            parts.append(f"{name}diverged at step {where.step:,} in layer {where.layer}")
        elif summary.status is RunStatus.interrupted:
            parts.append(f"{name}interrupted at step {summary.step:,}")
        elif summary.status is RunStatus.running:
            parts.append(f"{name}running, or killed, since step {summary.step:,}")
        if run.cut_short:
            parts.append(f"{name}cut short: {summary.step:,} of {run.recipe_steps:,} steps")
    if runs[0].unknown:
        parts.append(f"not comparable: {'; '.join(runs[0].unknown)}")
    if runs[0].summary.recipe in CONTROLS:
        parts.append(f'paper: "{CONTROLS[runs[0].summary.recipe]}"')
    return "; ".join(parts)


def _notes(runs: Sequence[Run], reference: Sequence[Run], target: Target) -> list[str]:
    notes = []
    if target.fault is not None:
        notes.append(f"Steps to this target show nothing: {target.fault}.")
    if not reference[0].ended:
        status = reference[0].summary.status.value
        notes.append(f"The baseline is not a finished run ({status}): the target may be too low.")
    for what, values in (
        ("scales", {run.summary.scale for run in runs}),
        ("numbers of classes", {run.summary.classes for run in runs}),
        ("data fingerprints", {run.data_fingerprint for run in runs}),
    ):
        said = ", ".join(sorted(str(value)[:16] for value in values - {None}))
        if "," in said:
            notes.append(f"Runs of different {what} ({said}) are not comparable.")
    if any(run.summary.images_seen != run.summary.step * MINI_BATCH for run in runs):
        notes.append("Steps are image-equivalent (images seen / 32): a mini-batch is not 32.")
    if {run.summary.scale for run in runs} != {"paper"}:
        notes.append(
            "The paper's columns are its own ImageNet runs, "
            f"with {100 * TARGET_TOP1:.1f} % as the target, and maxima."
        )
    return notes


def evaluated_models(
    comparison: Figure3, ensembles: Sequence[Evaluation] = ()
) -> list[tuple[str, list[Evaluation]]]:
    """Models by name, with their evaluations by the same BN statistics.

    A model is a row of Figure 3, the ensemble's members together, or an ensemble. Population
    statistics come before running ones where there are both.
    """
    named = [
        ("members of the ensemble, mean" if row.kind is Kind.member else row.title, entry)
        for row in comparison.rows
        for run in row.runs
        # One a way: `which=last` and bf16 come before the run's own, by the names of their files.
        for entry in {(e.crops, e.statistics, e.models): e for e in run.evaluations}.values()
    ]
    named += [(f"ensemble of {entry.models}", entry) for entry in ensembles]
    models: dict[tuple[str, int], dict[str, list[Evaluation]]] = {}
    for name, entry in named:
        kinds = models.setdefault((name, entry.models), {})
        kinds.setdefault(entry.statistics or "unknown", []).append(entry)
    return [(name, kinds[min(kinds)]) for (name, _), kinds in models.items()]
