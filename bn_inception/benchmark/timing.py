"""How every benchmark takes time, and what it reports.

Ways to do the same work take turns, and medians are compared: a machine that is slow for a while is
then slow for all ways. Ratios are taken within a round.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bn_inception.files import write_json
from bn_inception.record.environment import describe
from bn_inception.table import NOTHING, Table

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
        warm_up: units before the first that count: compilation, memory, workers.
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
        header, first = zip(*self.rows[0].items(), strict=True)
        cells = [[_cell(value) for value in row.values()] for row in self.rows]
        numbers = [column for column, value in enumerate(first) if not isinstance(value, str)]
        print(Table(header, cells, numbers, notes=self.sentences).as_text())
        if output is not None:
            write_json(output, {**self.about, "sentences": self.sentences, "rows": self.rows})
            print(output)


def about_here(fingerprint: str = "", device: torch.device = CPU) -> dict[str, Any]:
    """On what something was measured: machine, versions, and the data's fingerprint if given."""
    gpus = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    about = describe(fingerprint, gpus=gpus)
    return {key: value for key, value in about.items() if fingerprint or key != "data_fingerprint"}


def _cell(value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
