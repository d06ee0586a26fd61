"""A comparison as tables: for the terminal, as Markdown, and as JSON."""

import itertools
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from statistics import fmean
from typing import Any

from bn_inception.paper.results import FIGURE_3, FIGURE_4, TARGET_TOP1, RecipeResult
from bn_inception.quoting import markdown_cell
from bn_inception.report.comparison import Figure3, Kind, Row, evaluated_models
from bn_inception.report.curves import percent, plateau_of
from bn_inception.report.estimates import Estimate
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.runs import Run

NOTHING = "-"
_SENTENCE = 22
"""Characters that a line of a sentence has at least."""


@dataclass(frozen=True)
class Table:
    """What is shown alike on a terminal, in Markdown and in HTML.

    Attributes:
        lead: a sentence above the table; empty for none.
        header, rows: cells, as many in each row as in the header.
        numbers: columns whose cells stand to the right.
        notes: sentences below.
    """

    title: str
    lead: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    notes: Sequence[str] = ()

    def as_text(self, columns: int = 175) -> str:
        """Aligned by spaces; long cells take several lines, so that it fits into `columns`.

        A table that is too wide even so is a paragraph a row.
        """
        widths = _widths(self.header, self.rows, columns)
        fits = sum(widths) + 2 * len(widths) - 2 <= columns
        lines = self._aligned(widths) if fits else self._paragraphs(columns)
        lead = [textwrap.fill(self.lead, columns)] if self.lead else []
        notes = [textwrap.fill(f"* {note}", columns, subsequent_indent="  ") for note in self.notes]
        above = [*filter(None, [self.title, *lead]), ""]
        return "\n".join([*above, *lines, *(["", *notes] if notes else [])])

    def _aligned(self, widths: Sequence[int]) -> list[str]:
        lines = []
        for row in (self.header, *self.rows):
            # Names have hyphens and stay whole.
            cells = [
                textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
                for cell, width in zip(row, widths, strict=True)
            ]
            for line in itertools.zip_longest(*cells, fillvalue=""):
                aligned = (
                    cell.rjust(width) if column in self.numbers else cell.ljust(width)
                    for column, (cell, width) in enumerate(zip(line, widths, strict=True))
                )
                lines.append("  ".join(aligned).rstrip())
            if row is self.header:
                lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        return lines

    def _paragraphs(self, columns: int) -> list[str]:
        """Of each row its first cell, and below it the others after their headings."""
        lines = []
        for name, *cells in self.rows:
            said = zip(self.header[1:], cells, strict=True)
            text = "; ".join(f"{heading} {cell}" for heading, cell in said if cell != NOTHING)
            lines.append(name)
            lines += textwrap.wrap(
                text, columns, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            )
        return lines

    def as_markdown(self) -> str:
        """A Markdown table, with the title as a heading."""
        rule = ["---:" if column in self.numbers else "---" for column in range(len(self.header))]
        table = [
            "| " + " | ".join(map(markdown_cell, line)) + " |"
            for line in (self.header, rule, *self.rows)
        ]
        above = [f"## {markdown_cell(self.title)}", ""] if self.title else []
        above += [markdown_cell(self.lead), ""] if self.lead else []
        notes = ["", *(f"- {markdown_cell(note)}" for note in self.notes)] if self.notes else []
        return "\n".join([*above, *table, *notes])


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> list[int]:
    """Of each column its longest cell; sentences are narrowed, from the last column on, to fit."""
    words = [
        max(len(word) for cell in column for word in (*cell.split(), ""))
        for column in zip(header, *rows, strict=True)
    ]
    cells = zip(*rows, strict=True) if rows else ((),) * len(words)
    widths = [max(word, 1, *map(len, column)) for word, column in zip(words, cells, strict=True)]
    excess = sum(widths) + 2 * len(widths) - 2 - columns
    for column in reversed(range(len(widths))):
        least = min(widths[column], max(words[column], _SENTENCE))
        narrowed = max(least, widths[column] - max(0, excess))
        excess -= widths[column] - narrowed
        widths[column] = narrowed
    return widths


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
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


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


def _plain(value: Any) -> Any:
    """JSON-able."""
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        return Table("", "", _FIGURE_3, cells, range(1, 10))
    lead = f"No target: {comparison.baseline} has no evaluation."
    if comparison.target is not None:
        lead = (
            f"Target: {percent(comparison.target)} top-1, the plateau of {comparison.baseline} "
            "less one point. Means over seeds, with 95 % intervals."
        )
    return Table("", lead, _FIGURE_3, cells, range(1, 10), comparison.notes)


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
        _give_or_take(row.difference, "+.1f"),
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
        "Errors by crops and models (Figure 4)",
        "Errors in %, with the half width of the 95 % interval of the images.",
        ("model", "networks", "BN statistics", *(f"top-{k}: {w}" for k in (1, 5) for w in words)),
        rows,
        (1, *range(3, 9)),
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
