"""What every benchmark reports: rows of one measurement each, as a table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bn_inception.record.atomic import write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class InputRow:
    """The speed of one way to bring images in.

    Attributes:
        name: of the way.
        workers: processes that read.
        images_per_second: of all of them together; None where it could not be measured.
        ratio_to_reference: to torchvision's reference recipe in the same run, with as many workers.
        note: why there is no figure, or what it leaves out.
    """

    name: str
    workers: int
    images_per_second: float | None
    ratio_to_reference: float | None
    note: str = ""


@dataclass(frozen=True)
class StepRow:
    """The speed of one way to make an update.

    Attributes:
        name: of the way.
        batch: images in an update.
        milliseconds: an update.
        images_per_second: the same as images.
        ratio_to_reference: to the plain loop in the same run, at the same batch.
        note: why there is no figure, or what it leaves out.
    """

    name: str
    batch: int
    milliseconds: float | None
    images_per_second: float | None
    ratio_to_reference: float | None
    note: str = ""


def as_table(rows: Sequence["DataclassInstance"]) -> str:
    """Rows of one kind as an aligned Markdown table, a column a field; None is "-"."""
    if not rows:
        return ""
    names = list(asdict(rows[0]))
    cells = [names, *([_cell(value) for value in asdict(row).values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    numeric = [not isinstance(value, str) for value in asdict(rows[0]).values()]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, numeric, strict=True)
    )
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])])


def write_rows(path: Path, rows: Sequence["DataclassInstance"], about: Mapping[str, Any]) -> None:
    """Write `{**about, "rows": [...]}` as JSON, in one piece or not at all.

    Args:
        path: of the file.
        rows: dataclasses.
        about: command, machine and versions, JSON-able.

    Raises:
        UserError: it cannot be written.
    """
    write_json(path, {**about, "rows": [asdict(row) for row in rows]})


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def in_words(workers: int) -> str:
    """A number of worker processes in a sentence."""
    return "no worker process" if workers == 0 else f"{workers} worker{'s' if workers > 1 else ''}"
