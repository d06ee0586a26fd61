"""What every benchmark reports: rows of one measurement each, as a table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bn_inception.errors import UserError
from bn_inception.record.atomic import write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def as_table(rows: Sequence["DataclassInstance"]) -> str:
    """Rows of one kind as an aligned Markdown table, a column a field; None is "-"."""
    fields = asdict(rows[0])
    numeric = [not isinstance(value, str) for value in fields.values()]
    cells = [list(fields), *([_cell(value) for value in asdict(row).values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    columns = list(zip(widths, numeric, strict=True))
    cells.insert(1, ["-" * (width - 1) + ("-:"[right]) for width, right in columns])
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, (width, right) in zip(line, columns, strict=True)
        )
        + " |"
        for line in cells
    )


def write_rows(path: Path, rows: Sequence["DataclassInstance"], about: Mapping[str, Any]) -> None:
    """Write `{**about, "rows": [...]}` as JSON, in one piece or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_json(path, {**about, "rows": [asdict(row) for row in rows]})


def in_words(workers: int) -> str:
    """A number of worker processes in a sentence."""
    return "no worker process" if workers == 0 else f"{workers} worker{'s' if workers > 1 else ''}"


def refuse_below(least: int, **given: int | None) -> None:
    """UserError for the first of `given` (key=value, None is not given) that is below `least`."""
    for key, value in given.items():
        if value is not None and value < least:
            raise UserError(f"{key}: {value} is not {least} or more")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
