"""How every benchmark takes time, and what it reports.

Ways to do the same work take turns, and medians are compared: a machine that is slow for a while is
then slow for all ways. Ratios are taken within a round.
"""

import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from bn_inception.files import write_json
from bn_inception.record.environment import describe

Stream = Generator[object, None, None]
"""Endless; each `next` does one unit of work: an update, or a batch."""
Row = dict[str, Any]
"""Texts and numbers by column; None is not known."""
CPU = torch.device("cpu")


@dataclass
class Way:
    """One way to do the work.

    Attributes:
        start: begins a stream; what it does before its first unit is not timed.
        warm_up: units before the first that count: compilation, capture, memory, workers.
        note: what the figure leaves out or holds beyond the rest.
        failure: why there is no figure.
        seconds: of one unit, a value a turn.
    """

    name: str
    start: Callable[[], Stream]
    warm_up: int = 1
    note: str = ""
    failure: str = ""
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """Seconds of one unit; None where there is no figure."""
        return statistics.median(self.seconds) if self.seconds else None

    def speedup(self, reference: "Way") -> float | None:
        """How many times as fast as `reference`: the median of the ratios within each round."""
        pairs = list(zip(reference.seconds, self.seconds, strict=False))
        return statistics.median(other / own for other, own in pairs) if pairs else None


@contextmanager
def timed(way: Way, units: int, device: torch.device) -> Iterator[None]:
    """Add the seconds of one of `units` units done inside; nothing where they raise."""
    _wait(device)
    start = time.perf_counter()
    yield
    _wait(device)
    way.seconds.append((time.perf_counter() - start) / units)


def take_turn(way: Way, device: torch.device, *, untimed: int = 0, units: int = 0) -> None:
    """Do `untimed` units, then `units` with the clock running; 0 units are not timed."""
    with closing(way.start()) as stream:
        for _ in range(untimed):
            next(stream)
        if units:
            with timed(way, units, device):
                for _ in range(units):
                    next(stream)


def each_other_way_round(ways: Sequence[Way], turn: int) -> Sequence[Way]:
    """Forwards in even turns, backwards in odd ones: none always meets a warmer machine."""
    return ways if turn % 2 == 0 else ways[::-1]


def repeated(
    prepare: Callable[[], object], action: Callable[..., object], *arguments: Sequence[Any]
) -> Callable[[], Stream]:
    """Starts streams that call `action` with the next of each of `arguments`, round and round."""

    def start() -> Stream:
        prepare()
        for given in itertools.cycle(zip(*arguments, strict=True)):
            yield action(*given)

    return start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Measured:
    """What a benchmark measured, on what, and what that assumes, JSON-able."""

    rows: list[Row]
    about: dict[str, Any]
    sentences: Sequence[str] = ()

    def show(self, output: Path | None) -> None:
        """Print table and sentences; write all as JSON, in one piece or not at all."""
        wrapped = (fill(sentence, 80, subsequent_indent="  ") for sentence in self.sentences)
        table = as_table(self.rows)
        columns = shutil.get_terminal_size().columns  # 80 where there is no terminal
        if table.index("\n") > columns:
            table = as_paragraphs(self.rows, columns)
        print(table, "", *wrapped, sep="\n")
        if output is not None:
            write_json(output, {**self.about, "sentences": self.sentences, "rows": self.rows})
            print(output)


def about_here(fingerprint: str = "", device: torch.device = CPU) -> dict[str, Any]:
    """On what something was measured: machine, versions, and the data's fingerprint if given."""
    gpus = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    about = describe(fingerprint, gpus=gpus)
    return {key: value for key, value in about.items() if fingerprint or key != "data_fingerprint"}


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


def as_paragraphs(rows: Sequence[Row], columns: int) -> str:
    """The same for a narrow terminal: of each row its name, and below it the rest."""
    lines = []
    for row in rows:
        name, *others = row.items()
        lines.append(_cell(name[1]))
        said = (f"{key} {_cell(value)}" for key, value in others if value not in (None, ""))
        lines.append(fill("; ".join(said), columns, initial_indent="  ", subsequent_indent="  "))
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
