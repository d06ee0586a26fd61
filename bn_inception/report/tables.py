"""A comparison as terminal text, as Markdown and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bn_inception.paper.results import TARGET_TOP1
from bn_inception.report.comparison import Comparison, Row

NOTHING = "-"


def as_text(comparison: Comparison) -> str:
    """An aligned table for the terminal, with the target above it and the notes below."""
    header, rows = _cells(comparison)
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    table = [
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(len(line) for line in table)
    notes = [f"* {note}" for note in comparison.notes]
    return "\n".join([_heading(comparison), "", table[0], rule, *table[1:], "", *notes]).rstrip()


def as_markdown(comparison: Comparison) -> str:
    """A Markdown table, with the target above it and the notes below."""
    header, rows = _cells(comparison)
    rule = ["---:" if column in _NUMBERS else "---" for column in range(len(header))]
    table = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in (header, rule, *rows)
    ]
    notes = [f"- {note}" for note in comparison.notes]
    text = "\n".join([_heading(comparison), "", *table, "", *notes])
    return text.rstrip() + "\n"


def as_json(comparison: Comparison) -> str:
    """A JSON object: `baseline`, `target`, `rows`, `notes`; accuracies and ratios as fractions."""
    return json.dumps(_plain(asdict(comparison)), indent=2, allow_nan=False) + "\n"


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


def _cells(comparison: Comparison) -> tuple[Sequence[str], list[Sequence[str]]]:
    return _HEADER, [_row(row) for row in comparison.rows]


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
    return value


def _plain_step(key: str, value: Any) -> Any:
    if key == "status":
        return value.value
    whole = isinstance(value, float) and value.is_integer()
    if whole and key in ("maximum_step", "steps_to_target", "previous_step"):
        return int(value)
    return _plain(value)
