"""What every benchmark reports: rows of one measurement each, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from bn_inception.benchmark.timing import CPU
from bn_inception.errors import UserError
from bn_inception.files import write_json
from bn_inception.record import describe

Row = dict[str, Any]
"""Texts and numbers by column; None is not known."""


def as_table(rows: Sequence[Row]) -> str:
    """Rows of one kind as an aligned Markdown table; None is "-"."""
    columns = []
    for name, first in rows[0].items():
        cells = [name, *(_cell(row[name]) for row in rows)]
        width, right = max(map(len, cells)), not isinstance(first, str)
        cells = [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
        cells.insert(1, "-" * (width - 1) + "-:"[right])
        columns.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


@dataclass
class Measured:
    """What a benchmark measured, on what, and what that assumes, JSON-able."""

    rows: list[Row]
    about: dict[str, Any]
    sentences: Sequence[str] = ()

    def show(self, output: Path | None) -> None:
        """Print table and sentences; write all as JSON, in one piece or not at all."""
        wrapped = (fill(sentence, 80, subsequent_indent="  ") for sentence in self.sentences)
        print(as_table(self.rows), "", *wrapped, sep="\n")
        if output is not None:
            write_json(output, {**self.about, "sentences": self.sentences, "rows": self.rows})
            print(output)


def about_here(fingerprint: str = "", device: torch.device = CPU) -> dict[str, Any]:
    """On what something was measured: machine, versions, and the data's fingerprint if given."""
    gpus = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    about = describe(fingerprint, gpus=gpus)
    return {key: value for key, value in about.items() if fingerprint or key != "data_fingerprint"}


def refuse_below(least: float, key: str, value: float | None) -> None:
    """UserError where the value of `key` (None is not given) is below `least`."""
    if value is not None and not value >= least:
        raise UserError(f"{key}: {value} is not {least} or more")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
