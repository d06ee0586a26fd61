"""A comparison as tables: for the terminal, as Markdown, and as JSON."""

import itertools
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from bn_inception.paper.results import FIGURE_4, TARGET_TOP1
from bn_inception.report.comparison import Comparison, Row
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.findings import percent, points
from bn_inception.report.runs import Run
from bn_inception.report.seeds import SeedGroup, Spread

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
            "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
            for line in (self.header, rule, *self.rows)
        ]
        above = [f"## {self.title}", ""] if self.title else []
        above += [self.lead, ""] if self.lead else []
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([*above, *table, *notes])


def _width(head: str, body: Sequence[str]) -> int:
    """Characters of a line of a column: its longest cell, or a little for sentences."""
    longest_word = max((len(word) for cell in (head, *body) for word in cell.split()), default=0)
    return max(longest_word, min(_SENTENCE, max(map(len, body), default=0)))


def _lines(cell: str, width: int) -> list[str]:
    # Names have hyphens and stay whole.
    return textwrap.wrap(cell, max(1, width), break_long_words=False, break_on_hyphens=False)


def as_text(comparison: Comparison, *others: Table) -> str:
    """The tables for the terminal, Figure 3 first."""
    return "\n\n".join(table.as_text() for table in (figure3(comparison), *others))


def as_markdown(comparison: Comparison, *others: Table) -> str:
    """The tables in Markdown, Figure 3 first."""
    return "\n\n".join(table.as_markdown() for table in (figure3(comparison), *others)) + "\n"


def as_json(
    comparison: Comparison,
    groups: Sequence[SeedGroup] = (),
    evaluations: Sequence[tuple[str, Evaluation]] = (),
) -> str:
    """A JSON object: `baseline`, `target`, `rows`, `notes`, `seeds`, `evaluations`.

    Accuracies, errors and ratios are fractions. An entry of `seeds` names its runs; one of
    `evaluations` is as `bn-inception evaluate` wrote it, with the `name` of what was evaluated.
    """
    values = asdict(comparison)
    values["seeds"] = [
        {
            **{
                key: value
                for key, value in asdict(group).items()
                if key not in ("runs", "overrides")
            },
            "overrides": list(group.overrides),
            "runs": [run.name for run in group.runs],
        }
        for group in groups
    ]
    values["evaluations"] = [
        {"name": name, **asdict(evaluation), "path": evaluation.path.name}
        for name, evaluation in evaluations
    ]
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


def figure3(comparison: Comparison) -> Table:
    """BN Figure 3, with the paper's own numbers beside it."""
    return Table(
        "",
        _heading(comparison),
        _HEADER,
        [_row(row) for row in comparison.rows],
        _NUMBERS,
        comparison.notes,
    )


def seeds(groups: Sequence[SeedGroup], target: float | None) -> Table | None:
    """Mean, spread and interval over seeds; None where no recipe has two."""
    if not any(len(group.runs) > 1 for group in groups):
        return None
    header = (
        "recipe",
        "seeds",
        "maximum: mean",
        "std",
        "95 % interval",
        "steps to target: mean",
        "std",
        "95 % interval",
        "maximum, against the baseline's",
    )
    return Table(
        "Seeds",
        ""
        if target is None
        else f"Runs that differ in their seed alone; steps to {percent(target)} top-1.",
        header,
        [_seed_row(group) for group in groups],
        range(1, 8),
        (
            "Intervals of a mean are Student's; of a difference, Welch's over the seeds, or "
            "binomial over the held-out images where one recipe has a single seed.",
        ),
    )


def _seed_row(group: SeedGroup) -> Sequence[str]:
    maximum, steps = group.maximum, group.steps_to_target
    difference = group.against_baseline
    against = NOTHING
    if difference is not None:
        noise = ": smaller than the noise" if difference.within_noise else ""
        against = f"{points(difference)}{noise}"
    if steps is None:
        reached = f"{group.reached} of {len(group.runs)} reached it"
        step_cells = (reached, NOTHING, NOTHING)
    else:
        step_cells = _spread_cells(steps, _steps)
    return (
        group.title,
        str(len(group.runs)),
        *((NOTHING,) * 3 if maximum is None else _spread_cells(maximum, percent)),
        *step_cells,
        against,
    )


def _spread_cells(spread: Spread, written: Callable[[float], str]) -> tuple[str, str, str]:
    if spread.std is None or spread.low is None or spread.high is None:
        return written(spread.mean), NOTHING, NOTHING
    interval = f"{written(spread.low)} to {written(spread.high)}"
    return written(spread.mean), written(spread.std), interval


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


_HEADER = (
    "recipe",
    "run",
    "maximum",
    "at step",
    "steps to target",
    "ratio",
    f"paper: steps to {100 * TARGET_TOP1:.1f} %",
    "paper: ratio",
    "paper: maximum",
    "outcome",
)
_NUMBERS = range(2, 9)


def _row(row: Row) -> Sequence[str]:
    paper = row.paper
    outcome = row.outcome
    if paper is not None and paper.statement is not None:
        outcome += f' (paper: "{paper.statement}")'
    steps = _steps(row.steps_to_target)
    if row.previous_step is not None:
        steps += f" (after {_steps(row.previous_step)})"
    # "never" is the paper's result for sigmoid, "-" is no result at all.
    in_figure_3 = paper is not None and paper.maximum_top1 is not None
    paper_steps = NOTHING
    if paper is not None and paper.steps_to_target is not None:
        paper_steps = f"{paper.steps_to_target / 1e6:.1f}e6"
    elif in_figure_3:
        paper_steps = "never"
    return (
        row.title,
        row.name,
        _percent(row.maximum_top1),
        _steps(row.maximum_step),
        steps,
        _percent(row.ratio),
        paper_steps,
        _percent(None if paper is None else paper.ratio),
        _percent(None if paper is None else paper.maximum_top1),
        outcome,
    )


def _heading(comparison: Comparison) -> str:
    row = comparison.baseline_row
    if comparison.target is None:
        return f"No target: {row.title} (run {row.name}) has no evaluation."
    return (
        f"Target: {_percent(comparison.target)} top-1, the maximum of {row.title} "
        f"(run {row.name}). Steps to target: the first evaluation at or above it, "
        "and the one before."
    )


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{100 * fraction:.1f} %"


def _steps(steps: float | None) -> str:
    return NOTHING if steps is None else f"{steps:,.0f}"


def _plain(value: Any) -> Any:
    """JSON-able: enums by value, whole step counts without a fraction."""
    if isinstance(value, dict):
        return {key: _plain_step(key, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _plain_step(key: str, value: Any) -> Any:
    whole = isinstance(value, float) and value.is_integer()
    if whole and key in ("maximum_step", "steps_to_target", "previous_step"):
        return int(value)
    return _plain(value)
