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
from bn_inception.report.comparison import Figure3, Kind, Model, Row
from bn_inception.report.estimates import Estimate, percent
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.runs import Run

NOTHING = "-"

_SENTENCE = 36
"""Characters of a line in a column of sentences."""


@dataclass(frozen=True)
class Table:
    """What is shown alike on a terminal, in Markdown and in HTML.

    Attributes:
        title: empty for none.
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

    def as_text(self) -> str:
        """Columns aligned by spaces; headings and long sentences take several lines."""
        columns = list(zip(self.header, *self.rows, strict=True))
        cells = [
            [_lines(cell, _width(head, body)) for cell in (head, *body)] for head, *body in columns
        ]
        widths = [max(len(line) for cell in column for line in cell) for column in cells]
        rows: list[list[str]] = []
        for row in zip(*cells, strict=True):
            rows.append([])
            for line in itertools.zip_longest(*row, fillvalue=""):
                rows[-1].append(
                    "  ".join(
                        cell.rjust(width) if column in self.numbers else cell.ljust(width)
                        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
                    ).rstrip()
                )
        rule = "-" * max(len(line) for row in rows for line in row)
        above = [*filter(None, [self.title, self.lead]), ""]
        notes = ["", *(f"* {note}" for note in self.notes)] if self.notes else []
        return "\n".join([*above, *rows[0], rule, *itertools.chain(*rows[1:]), *notes])

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


def _width(head: str, body: Sequence[str]) -> int:
    """Characters of a line of a column: its longest cell, or a little for sentences."""
    longest_word = max((len(word) for cell in (head, *body) for word in cell.split()), default=0)
    return max(longest_word, min(_SENTENCE, max(map(len, body), default=0)))


def _lines(cell: str, width: int) -> list[str]:
    # Names have hyphens and stay whole.
    return textwrap.wrap(cell, max(1, width), break_long_words=False, break_on_hyphens=False)


def as_text(comparison: Figure3, *others: Table) -> str:
    """The tables for the terminal, Figure 3 first."""
    return "\n\n".join(table.as_text() for table in (figure3(comparison), *others))


def as_markdown(comparison: Figure3, *others: Table) -> str:
    """The tables in Markdown, Figure 3 first."""
    return "\n\n".join(table.as_markdown() for table in (figure3(comparison), *others)) + "\n"


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
    best = summary.best
    return {
        "name": run.name,
        "seed": summary.seed,
        "status": summary.status.value,
        "step": summary.step,
        "plateau": run.plateau,
        "best": None if best is None else best.top1,
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


# --- Figure 3


def figure3(comparison: Figure3, kinds: Sequence[Kind] = ()) -> Table:
    """BN Figure 3, the paper's numbers beside each.

    Args:
        comparison: whose rows are shown.
        kinds: of rows; none for all. Of the paper's recipes those that were not run are shown too.
    """
    rows = [row for row in comparison.rows if not kinds or row.kind in kinds]
    cells = list(map(_row, rows))
    lead, notes = "", comparison.notes
    if Kind.recipe in kinds:
        cells = [
            cell
            for recipe, result in FIGURE_3.items()
            for cell in [_row(row) for row in rows if row.recipe == recipe] or [_not_run(result)]
        ]
    if kinds and Kind.recipe not in kinds:
        notes = ()
    elif comparison.target is None:
        lead = f"No target: {comparison.baseline} has no evaluation."
    else:
        lead = (
            f"Target: {percent(comparison.target)} top-1, the plateau of {comparison.baseline} "
            "less one point. Means over seeds, with 95 % intervals."
        )
    header = (
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
    return Table("", lead, header, cells, range(1, 10), notes)


def _row(row: Row) -> Sequence[str]:
    ratio = "100 %" if row.is_baseline else NOTHING
    if row.ratio is not None:
        ratio = _with_interval(row.ratio) if math.isfinite(row.ratio.high) else NOTHING
    return (
        row.title,
        str(len(row.runs)),
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


def _not_run(paper: RecipeResult) -> Sequence[str]:
    known = {0: paper.title, 3: percent(paper.maximum_top1), 6: _paper_steps(paper), 10: "not run"}
    return [known.get(column, NOTHING) for column in range(11)]


def _paper_steps(paper: RecipeResult | None) -> str:
    if paper is None:
        return NOTHING
    # "never" is the paper's result for sigmoid, "-" is no result at all.
    return "never" if paper.steps_to_72_2 is None else f"{paper.steps_to_72_2 / 1e6:.1f}e6"


def _give_or_take(found: Estimate | None, form: str) -> str:
    if found is None:
        return NOTHING
    return f"{100 * found.value:{form}} ±{50 * (found.high - found.low):.1f}"


def _with_interval(found: Estimate) -> str:
    value, low, high = (f"{100 * end:.1f}" for end in (found.value, found.low, found.high))
    return f"{value} ({low} to {high}) %"


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else percent(fraction)


# --- Figure 4


def figure4(models: Sequence[Model]) -> Table | None:
    """BN Figure 4: models by crops, the paper's rows below; None where there is no evaluation.

    Seeds are averaged; the interval is that of the images alone.
    """
    if not models:
        return None
    crops = (1, 10, 144)
    rows: list[Sequence[str]] = [
        (
            model.name,
            str(model.networks),
            model.statistics or NOTHING,
            *(_error(model.errors(top, count)) for top in (1, 5) for count in crops),
        )
        for model in models
    ]
    for networks in dict.fromkeys(result.models for result in FIGURE_4 if result.crops):
        printed = {r.crops: r for r in FIGURE_4 if r.crops and r.models == networks}
        title = next(iter(printed.values())).title.removesuffix(" single crop")
        found = [printed.get(count) for count in crops]
        top1 = [NOTHING if r is None else _percent2(r.top1_error) for r in found]
        top5 = [NOTHING if r is None else _percent2(r.top5_error) for r in found]
        rows.append((f"paper: {title}", str(networks), NOTHING, *top1, *top5))
    others = [f"{r.title} {_percent2(r.top5_error)}" for r in FIGURE_4 if r.crops is None]
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


def _error(found: Sequence[tuple[float, tuple[float, float]]]) -> str:
    if not found:
        return NOTHING
    half = fmean((high - low) / 2 for _, (low, high) in found)
    return f"{100 * fmean(error for error, _ in found):.1f} ±{100 * half:.1f}"


def _percent2(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{100 * fraction:.2f}"
