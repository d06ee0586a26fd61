"""A comparison as tables: for the terminal, as Markdown, and as JSON."""

import itertools
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from bn_inception.paper.results import FIGURE_4, TARGET_TOP1
from bn_inception.quoting import markdown_cell
from bn_inception.report.comparison import Figure3, Row
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


def as_json(comparison: Figure3, evaluations: Sequence[tuple[str, Evaluation]] = ()) -> str:
    """A JSON object: `baseline`, `target`, `rows`, `notes`, `evaluations`.

    Accuracies, errors and ratios are fractions; an interval without an end ends in null. A row
    names its runs; an evaluation is as `bn-inception evaluate` wrote it, with a `name`.
    """
    rows = [{**vars(row), "runs": list(map(_run, row.runs))} for row in comparison.rows]
    entries = [
        {"name": name, **vars(entry), "path": entry.path.name} for name, entry in evaluations
    ]
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


def figure3(comparison: Figure3) -> Table:
    """BN Figure 3, with the paper's own numbers beside it."""
    lead = f"No target: {comparison.baseline} has no evaluation."
    if comparison.target is not None:
        lead = (
            f"Target: {percent(comparison.target)} top-1, the plateau of {comparison.baseline} "
            "less one point. Means over seeds, with 95 % intervals."
        )
    header = (
        "recipe",
        "seeds",
        "plateau, %",
        "to the baseline, points",
        "steps to target",
        "ratio",
        "to 80 / 90 / 95 % of its plateau",
        f"paper: steps to {100 * TARGET_TOP1:.1f} %",
        "paper: ratio",
        "paper: maximum",
        "outcome",
    )
    rows = list(map(_row, comparison.rows))
    return Table("", lead, header, rows, range(1, 10), comparison.notes)


def _row(row: Row) -> Sequence[str]:
    paper, paper_steps = row.paper, NOTHING
    if paper is not None:
        # "never" is the paper's result for sigmoid, "-" is no result at all.
        steps = paper.steps_to_72_2
        paper_steps = "never" if steps is None else f"{steps / 1e6:.1f}e6"
    ratio = "100 %" if row.is_baseline else NOTHING
    if row.ratio is not None:
        ratio = _with_interval(row.ratio) if math.isfinite(row.ratio.high) else NOTHING
    return (
        row.title,
        str(len(row.runs)),
        _give_or_take(row.plateau, ".1f"),
        _give_or_take(row.difference, "+.1f"),
        NOTHING if row.steps is None else f"{row.steps:,.0f}",
        ratio,
        " / ".join(map(_percent, row.shares)) if any(row.shares) else NOTHING,
        paper_steps,
        _percent(row.paper_ratio),
        _percent(None if paper is None else paper.maximum_top1),
        row.outcome,
    )


def _give_or_take(found: Estimate | None, form: str) -> str:
    if found is None:
        return NOTHING
    return f"{100 * found.value:{form}} ±{50 * (found.high - found.low):.1f}"


def _with_interval(found: Estimate) -> str:
    value, low, high = (f"{100 * end:.1f}" for end in (found.value, found.low, found.high))
    return f"{value} ({low} to {high}) %"


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else percent(fraction)


def named_evaluations(
    runs: Sequence[Run], ensembles: Sequence[Evaluation]
) -> list[tuple[str, Evaluation]]:
    """Every saved evaluation with the name of its run, or of its file."""
    named = [(run.name, evaluation) for run in runs for evaluation in run.evaluations]
    return [*named, *((entry.path.stem, entry) for entry in ensembles)]


def figure4(evaluations: Sequence[tuple[str, Evaluation]]) -> Table | None:
    """BN Figure 4: the paper's rows, then the saved evaluations; None where there is none."""
    if not evaluations:
        return None
    header = (
        "model",
        "crops",
        "models",
        "statistics",
        "top-1 error",
        "95 % interval",
        "top-5 error",
        "95 % interval",
        "images",
    )
    paper = [
        (
            f"paper: {result.title}",
            NOTHING if result.crops is None else str(result.crops),
            NOTHING if result.models is None else str(result.models),
            NOTHING,
            _percent2(result.top1_error),
            NOTHING,
            _percent2(result.top5_error),
            NOTHING,
            NOTHING,
        )
        for result in FIGURE_4
    ]
    order = sorted(evaluations, key=lambda entry: (entry[1].models, entry[1].crops, entry[0]))
    own = [
        (
            name,
            str(entry.crops),
            str(entry.models),
            entry.statistics or NOTHING,
            _percent2(entry.top1_error),
            _interval(entry.top1_interval),
            _percent2(entry.top5_error),
            _interval(entry.top5_interval),
            f"{entry.count:,}",
        )
        for name, entry in order
    ]
    return Table(
        "Errors by crops and models (Figure 4)",
        "",
        header,
        [*own, *paper],
        (1, 2, 4, 5, 6, 7, 8),
        ("The paper's rows are ImageNet's 50,000 validation images.",),
    )


def _percent2(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{100 * fraction:.2f} %"


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * low:.2f} to {100 * high:.2f}"
