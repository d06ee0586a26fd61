"""A comparison as tables: for the terminal, as Markdown, and as JSON."""

import json
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from bn_inception.files import plain
from bn_inception.paper.results import FIGURE_3, FIGURE_4, TARGET_TOP1, RecipeResult
from bn_inception.report.comparison import Figure3, Kind, Row, evaluated_models
from bn_inception.report.curves import percent, plateau_of
from bn_inception.report.estimates import Estimate
from bn_inception.report.runs import Evaluation, Run
from bn_inception.table import NOTHING, Table


def as_json(comparison: Figure3, ensembles: Sequence[Evaluation] = ()) -> str:
    """A JSON object: `baseline`, `target`, `shared`, `rows`, `notes`, `evaluations`.

    Accuracies, errors and ratios are fractions; an interval without an end ends in null. A row
    names its runs; an evaluation is as `bn-inception evaluate` wrote it, with a `name`.
    """
    rows = [{**vars(row), "runs": list(map(_run, row.runs))} for row in comparison.rows]
    runs = [run for row in comparison.rows for run in row.runs]
    named = [(run.name, entry) for run in runs for entry in run.evaluations]
    named += [(entry.path.stem, entry) for entry in ensembles]
    entries = [{"name": name, **vars(entry), "path": entry.path.name} for name, entry in named]
    values = {**vars(comparison), "rows": rows, "evaluations": entries}
    return json.dumps(plain(values), indent=2, allow_nan=False) + "\n"


def _run(run: Run) -> dict[str, Any]:
    summary = run.summary
    return {
        "name": run.name,
        "seed": summary.seed,
        "status": summary.status.value,
        "step": summary.step,
        "plateau": plateau_of(run),
        "best": None if summary.best is None else summary.best.top1,
        "overrides": run.overrides,
    }


_FIGURE_3 = (
    "recipe",
    "seeds",
    "plateau, %",
    "paper: maximum",
    "to the baseline, points",
    "steps to target",
    f"paper: steps to {100 * TARGET_TOP1:.1f} %",
    "ratio",
    "paper: ratio",
    "to 80 / 90 / 95 % of its plateau",
    "outcome",
)


def figure3(comparison: Figure3, kinds: Sequence[Kind] = tuple(Kind)) -> Table:
    """BN Figure 3, the paper's numbers beside each; rows of some kinds.

    Of the paper's recipes alone those that were not run are shown too; what is not a recipe alone
    has no target and no notes of its own.
    """
    rows = comparison.of(*kinds)
    if kinds == (Kind.recipe,):
        rows += [
            Row(paper.title, recipe, Kind.recipe, outcome="not run", paper=paper)
            for recipe, paper in FIGURE_3.items()
            if recipe not in {row.recipe for row in rows}
        ]
        rows.sort(key=lambda row: list(FIGURE_3).index(row.recipe))
    cells = list(map(_row, rows))
    if Kind.recipe not in kinds:
        return Table(_FIGURE_3, cells, range(1, 10))
    lead = f"No target: {comparison.baseline} has no evaluation."
    if comparison.target is not None:
        lead = (
            f"Target: {percent(comparison.target)} top-1, the plateau of {comparison.baseline} "
            "less one point. Means over seeds, with 95 % intervals."
        )
    return Table(_FIGURE_3, cells, range(1, 10), lead=lead, notes=comparison.notes)


def _row(row: Row) -> Sequence[str]:
    ratio = "100 %" if row.is_baseline else NOTHING
    if row.ratio is not None and math.isfinite(row.ratio.high):
        ends = (row.ratio.value, row.ratio.low, row.ratio.high)
        ratio = "{:.1f} ({:.1f} to {:.1f}) %".format(*(100 * end for end in ends))
    return (
        row.title,
        str(len(row.runs) or NOTHING),
        _give_or_take(row.plateau, ".1f"),
        _percent(None if row.paper is None else row.paper.maximum_top1),
        _give_or_take(row.difference, "+z.1f"),
        NOTHING if row.steps is None else f"{row.steps:,.0f}",
        _paper_steps(row.paper),
        ratio,
        _percent(row.paper_ratio),
        " / ".join(map(_percent, row.shares)) if any(row.shares) else NOTHING,
        row.outcome,
    )


def _paper_steps(paper: RecipeResult | None) -> str:
    if paper is None:
        return NOTHING
    # "never" is the paper's result for sigmoid, "-" is no result at all.
    return "never" if paper.steps_to_72_2 is None else f"{paper.steps_to_72_2 / 1e6:.1f}e6"


def _give_or_take(found: Estimate | None, form: str) -> str:
    if found is None:
        return NOTHING
    return f"{100 * found.value:{form}} ±{50 * (found.high - found.low):.1f}"


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else percent(fraction)


def figure4(comparison: Figure3, ensembles: Sequence[Evaluation] = ()) -> Table | None:
    """BN Figure 4: models by crops, the paper's rows below; None where there is no evaluation.

    The seeds of a model are averaged; the interval is that of the images alone.
    """
    crops = {"single": 1, "10": 10, "144": 144}
    rows = []
    for name, entries in evaluated_models(comparison, ensembles):
        errors = [_errors(entries, top, rule) for top in (1, 5) for rule in crops]
        rows.append([name, str(entries[0].models), entries[0].statistics or NOTHING, *errors])
    if not rows:
        return None
    for models_printed in dict.fromkeys(result.models for result in FIGURE_4 if result.crops):
        printed = {r.crops: r for r in FIGURE_4 if r.crops and r.models == models_printed}
        title = next(iter(printed.values())).title.removesuffix(" single crop")
        found = [printed.get(count) for count in crops.values()]
        known = [getattr(r, f"top{k}_error", None) for k in (1, 5) for r in found]
        said = [NOTHING if error is None else f"{100 * error:.2f}" for error in known]
        rows.append([f"paper: {title}", str(models_printed), NOTHING, *said])
    others = [f"{r.title} {100 * r.top5_error:.2f}" for r in FIGURE_4 if r.crops is None]
    words = ["1 crop", "10 crops", "144 crops"]
    return Table(
        ("model", "networks", "BN statistics", *(f"top-{k}: {w}" for k in (1, 5) for w in words)),
        rows,
        (1, *range(3, 9)),
        "Errors by crops and models (Figure 4)",
        "Errors in %, with the half width of the 95 % interval of the images.",
        (
            "The paper's rows are ImageNet's 50,000 validation images.",
            f"Of unknown crops, top-5: {', '.join(others)}.",
        ),
    )


def _errors(evaluations: Sequence[Evaluation], top: int, crops: str) -> str:
    found = [vars(entry) for entry in evaluations if entry.crops == crops]
    if not found:
        return NOTHING
    error = fmean(values[f"top{top}_error"] for values in found)
    intervals = [values[f"top{top}_interval"] for values in found]
    half = fmean((high - low) / 2 for low, high in intervals)
    return f"{100 * error:.1f} ±{100 * half:.1f}"
