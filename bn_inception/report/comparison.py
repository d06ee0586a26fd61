"""BN Figure 3 for a user's runs, beside the paper's numbers. Pure: runs in, rows out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bn_inception.errors import UserError
from bn_inception.paper.results import CONTROLS, FIGURE_3, TARGET_TOP1
from bn_inception.record.summary import RunStatus
from bn_inception.report.runs import Run


@dataclass(frozen=True)
class PaperRow:
    """What the paper reports of a recipe (Figure 3, section 4.2.2).

    Attributes:
        steps_to_target: steps of 32 images to 72.2 %; None where it was never reached.
        ratio: those steps, relative to plain Inception's.
        maximum_top1: a fraction; None where the text gives no number.
        statement: what the text says in words of a recipe that is not in Figure 3.
    """

    steps_to_target: int | None
    ratio: float | None
    maximum_top1: float | None
    statement: str | None = None


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        name: of the run; its path where two runs share a name.
        recipe: its name in the configuration.
        title: the recipe's name in the paper, or `recipe`, with what was set otherwise in this run
            and not in all.
        scale, seed, status: as in the run's summary.
        maximum_top1: highest validation accuracy, a fraction; None without an evaluation.
        maximum_step: its first step. All steps are image-equivalent (images seen / 32).
        steps_to_target: first evaluated step at or above the comparison's target, None if none.
        previous_step: the evaluation before it: the true step lies after it. None like it.
        ratio: `steps_to_target` relative to the baseline's.
        is_baseline: whether this run sets the target.
        outcome: what became of it, in words.
        paper: None for a recipe the paper does not report.
    """

    name: str
    recipe: str
    title: str
    scale: str
    seed: int
    status: RunStatus
    maximum_top1: float | None
    maximum_step: float | None
    steps_to_target: float | None
    previous_step: float | None
    ratio: float | None
    is_baseline: bool
    outcome: str
    paper: PaperRow | None


@dataclass(frozen=True)
class Comparison:
    """Steps to the baseline's maximum accuracy, for every run.

    Attributes:
        baseline: name of the run that sets the target.
        target: its maximum top-1 accuracy, a fraction; None if it has no evaluation.
        rows: in the paper's order of recipes, then others; by seed within a recipe.
        notes: what a reader must know to judge the numbers, a sentence each.
    """

    baseline: str
    target: float | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def baseline_row(self) -> Row:
        """The row of the run that sets the target."""
        return next(row for row in self.rows if row.is_baseline)


def compare(runs: Sequence[Run], baseline: str = "inception") -> Comparison:
    """Compare runs as the paper's Figure 3 does.

    Args:
        runs: at least one.
        baseline: a run's name or a recipe. Of several runs of that recipe the one with the
            highest accuracy sets the target.

    Raises:
        UserError: no run of that name or recipe.
    """
    names = _names(runs)
    candidates = [
        run for run, name in zip(runs, names, strict=True) if baseline in (name, run.name)
    ] or [run for run in runs if run.summary.recipe == baseline]
    if not candidates:
        given = ", ".join(
            f"{name} ({run.summary.recipe})" for run, name in zip(runs, names, strict=True)
        )
        raise UserError(
            f"baseline: no run is named {baseline!r} or has this recipe; name one of {given}"
        )
    reference = max(candidates, key=lambda run: run.maximum_top1 or 0.0)
    target = reference.maximum_top1
    shared = set.intersection(*(set(run.overrides) for run in runs))
    rows = [_row(run, name, reference, shared) for run, name in zip(runs, names, strict=True)]
    order = {recipe: position for position, recipe in enumerate([*FIGURE_3, *CONTROLS])}
    rows.sort(key=lambda row: (order.get(row.recipe, len(order)), row.recipe, row.seed, row.name))
    reference_name = names[runs.index(reference)]
    return Comparison(
        baseline=reference_name,
        target=target,
        rows=tuple(rows),
        notes=tuple(_notes(runs, reference, reference_name, len(candidates))),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    counts = Counter(run.name for run in runs)
    return [run.name if counts[run.name] == 1 else str(run.path) for run in runs]


def _row(run: Run, name: str, reference: Run, shared: set[str]) -> Row:
    target = reference.maximum_top1
    reached = None if target is None else run.reaches(target)
    # The reference has its own maximum at some step, greater than 0 unless it was never trained.
    reference_steps = reference.maximum_step
    result = FIGURE_3.get(run.summary.recipe)
    return Row(
        name=name,
        recipe=run.summary.recipe,
        title=" ".join(
            [
                run.summary.recipe if result is None else result.title,
                *(word for word in run.overrides if word not in shared),
            ]
        ),
        scale=run.summary.scale,
        seed=run.summary.seed,
        status=run.summary.status,
        maximum_top1=run.maximum_top1,
        maximum_step=run.maximum_step,
        steps_to_target=None if reached is None else reached[0],
        previous_step=None if reached is None else reached[1],
        ratio=reached[0] / reference_steps if reached and reference_steps else None,
        is_baseline=run is reference,
        outcome=_outcome(run, reference, reached is not None),
        paper=_paper(run.summary.recipe, reference.summary.recipe),
    )


def _paper(recipe: str, baseline_recipe: str) -> PaperRow | None:
    if recipe in CONTROLS:
        return PaperRow(None, None, None, CONTROLS[recipe])
    result = FIGURE_3.get(recipe)
    if result is None:
        return None
    steps = result.steps_to_72_2
    inception_steps = FIGURE_3["inception"].steps_to_72_2
    # The paper counts steps to plain Inception's maximum only.
    comparable = baseline_recipe == "inception" and steps and inception_steps
    ratio = steps / inception_steps if comparable and steps and inception_steps else None
    return PaperRow(steps, ratio, result.maximum_top1)


def _outcome(run: Run, reference: Run, reached: bool) -> str:
    summary = run.summary
    parts = []
    if not run.steps:
        parts.append("no evaluation")
    elif run is reference:
        parts.append("sets the target")
    elif reference.maximum_top1 is not None:
        ended = summary.status in (RunStatus.finished, RunStatus.diverged)
        not_reached = "never reached the target" if ended else "target not reached yet"
        parts.append("reached the target" if reached else not_reached)
    if not summary.started_learning:
        parts.append("did not start learning")
    if summary.status is RunStatus.diverged:
        where = summary.diverged
        parts.append(
            "diverged"
            if where is None
            else f"diverged at step {where.step:,} in layer {where.layer}"
        )
    elif summary.status is RunStatus.interrupted:
        parts.append(f"interrupted at step {summary.step:,}")
    elif summary.status is RunStatus.running:
        parts.append(f"running, or killed, since step {summary.step:,}")
    return "; ".join(parts)


def _notes(runs: Sequence[Run], reference: Run, reference_name: str, candidates: int) -> list[str]:
    notes = []
    if candidates > 1:
        notes.append(
            f"{candidates} runs of {reference.summary.recipe}: the one with the highest accuracy, "
            f"{reference_name}, sets the target."
        )
    if reference.maximum_top1 is None:
        notes.append("The baseline has no evaluation, so there is no target.")
    if not reference.summary.started_learning:
        notes.append("The baseline did not start learning: reaching its maximum shows nothing.")
    if reference.summary.status is not RunStatus.finished:
        notes.append(
            f"The baseline is not a finished run ({reference.summary.status.value}): "
            "the target may be too low."
        )
    scales = sorted({run.summary.scale for run in runs})
    if len(scales) > 1:
        notes.append(f"Runs of different scales ({', '.join(scales)}) are not comparable.")
    classes = sorted({run.summary.classes for run in runs if run.summary.classes is not None})
    if len(classes) > 1:
        notes.append(
            f"Runs of different numbers of classes ({', '.join(map(str, classes))}) "
            "are not comparable."
        )
    if len({run.data_fingerprint for run in runs} - {None}) > 1:
        notes.append("Runs on different data are not comparable: the data fingerprints differ.")
    if any(run.summary.images_seen != run.summary.step * 32 for run in runs):
        notes.append("Steps are image-equivalent (images seen / 32): a mini-batch is not 32.")
    if {run.summary.scale for run in runs} != {"paper"}:
        notes.append(
            "The paper's columns are its own ImageNet runs, "
            f"with {100 * TARGET_TOP1:.1f} % as the target."
        )
    return notes
