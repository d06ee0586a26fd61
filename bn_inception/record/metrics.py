"""`metrics.jsonl`: the record of a run, one JSON object a line.

A metric is one field of a record: its name in the file, its TensorBoard tag, how the terminal shows
it. A value that is not finite (the loss of a diverging run) is written as null: JSON has no NaN.
"""

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from bn_inception.errors import UserError
from bn_inception.fields import Fraction, parse_object
from bn_inception.files import plain, read_bytes, refusing, write_bytes

MAX_BYTES = 1 << 30
"""The paper's longest run logs 130 MB."""


def _metric(tag: str, shown: str = "") -> dict[str, str]:
    """A number's tag in TensorBoard, and its format on the terminal; empty for not there."""
    return {"tag": tag, "shown": shown}


@dataclass(frozen=True)
class Record:
    """What was measured after `step` updates; `equivalent_steps` are images seen / 32."""

    kind: ClassVar[str]

    step: int
    equivalent_steps: float

    @property
    def scalars(self) -> dict[str, float]:
        """The finite metrics by TensorBoard tag."""
        return {
            metric["tag"].format_map(vars(self)): value
            for metric, value in self._metrics()
            if math.isfinite(value)
        }

    @property
    def shown(self) -> dict[str, str]:
        """The metrics that the terminal shows, as texts by tag."""
        return {
            metric["tag"]: metric["shown"].format(value)
            for metric, value in self._metrics()
            if metric["shown"]
        }

    def _metrics(self) -> Iterator[tuple[Mapping[str, str], float]]:
        for each in fields(self):
            if "tag" in each.metadata and (value := getattr(self, each.name)) is not None:
                yield each.metadata, value


@dataclass(frozen=True)
class TrainRecord(Record):
    """Training over the log interval that ends at `step`: means over it, the rate at its end.

    Losses are cross-entropies in nats, accuracies fractions.
    """

    kind: ClassVar[str] = "train"

    loss: float | None = field(metadata=_metric("loss/train", "loss {:.3f}"))
    learning_rate: float = field(metadata=_metric("learning_rate"))
    images_per_second: float | None = field(
        metadata=_metric("images_per_second", "images/s {:.0f}")
    )
    top1: float | None = field(default=None, metadata=_metric("accuracy/train_top1"))


@dataclass(frozen=True)
class ValidationRecord(Record):
    """One evaluation on all `count` held-out images.

    The network was judged with BN's `statistics` ("population"; None without BN), which Algorithm 2
    took over `population_batches` training mini-batches.
    """

    kind: ClassVar[str] = "validation"

    loss: float | None = field(metadata=_metric("loss/validation"))
    top1: Fraction = field(metadata=_metric("accuracy/validation_top1", "top-1 {:.2%}"))
    top5: Fraction = field(metadata=_metric("accuracy/validation_top5"))
    count: int
    statistics: str | None = None
    population_batches: int | None = None


def _input(name: str) -> Any:
    return field(metadata=_metric(f"probe/{{layer}}/{name}"))


@dataclass(frozen=True)
class ProbeRecord(Record):
    """A look into one layer in the forward and backward pass of update number `step`.

    Percentiles, mean and standard deviation are of what goes into its nonlinearity: of the first
    channel (`channel_`), and of all of the layer. `saturated` is the fraction of a sigmoid's inputs
    with a slope under a tenth of the greatest; `gradient_to_weight` is the norm of the gradient of
    the loss, without L2 regularization, over that of the weight. None is: not finite.
    """

    kind: ClassVar[str] = "probe"

    layer: str
    channel_p15: float | None = _input("channel_p15")
    channel_p50: float | None = _input("channel_p50")
    channel_p85: float | None = _input("channel_p85")
    channel_mean: float | None = _input("channel_mean")
    channel_deviation: float | None = _input("channel_deviation")
    p15: float | None = _input("p15")
    p50: float | None = _input("p50")
    p85: float | None = _input("p85")
    mean: float | None = _input("mean")
    deviation: float | None = _input("deviation")
    saturated: float | None = _input("saturated")
    gradient_to_weight: float | None = _input("gradient_to_weight")


KINDS: dict[str, type[Record]] = {
    kind.kind: kind for kind in (TrainRecord, ValidationRecord, ProbeRecord)
}


class MetricsLog:
    """Appends records to `metrics.jsonl`; each line reaches the operating system at once.

    Args:
        path: of the file, made where it is missing.
        lines: with which the checkpoint was made; those that follow are dropped unread.
        checksum: CRC-32 of these lines.

    Attributes:
        kept: the records that the file begins with.
        lines, checksum: of the file as it is now.

    Raises:
        UserError: the file does not begin with these lines, or cannot be written.
    """

    def __init__(self, path: Path, lines: int = 0, checksum: int = 0) -> None:
        self._path = path
        found = path.read_bytes() if path.exists() else b""
        kept = found.splitlines(keepends=True)[:lines]
        content = b"".join(kept)
        remedy = "restore the file, or start a new run under another run.name"
        if len(kept) < lines:
            raise UserError(
                f"{path}: {len(kept)} lines, but the checkpoint was made with {lines}; {remedy}"
            )
        self.kept = [_parse(line, f"{path}, line {n}") for n, line in enumerate(kept, start=1)]
        self.lines, self.checksum, self._whole = lines, zlib.crc32(content), True
        if self.checksum != checksum:
            raise UserError(
                f"{path}: other lines than those with which the checkpoint was made; {remedy}"
            )
        if content != found:
            write_bytes(path, content)
        # Unbuffered: forked loader workers inherit no half-written line, and closing cannot fail.
        with self._writing():
            self._file = path.open("ab", buffering=0)

    def append(self, record: Record) -> None:
        """Write one line."""
        values = {"kind": record.kind, **plain(record)}
        line = rest = json.dumps(values, allow_nan=False).encode() + b"\n"
        self._whole, whole = False, self._whole
        with self._writing():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._whole = whole
        self.lines += 1
        self.checksum = zlib.crc32(line, self.checksum)

    def sync(self) -> None:
        """Put every line on disk: what a checkpoint counts on must survive a power cut too.

        After a line that could not be written it is refused: the steps must be made again.
        """
        with self._writing():
            if not self._whole:
                raise OSError("a line is missing")
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the log takes no further records."""
        self._file.close()

    def _writing(self) -> AbstractContextManager[None]:
        remedy = "make room, then continue with run.resume=must"
        return refusing(f"{self._path}: cannot be written", remedy)


def read_metrics(path: Path) -> list[Record]:
    """Read a `metrics.jsonl`, in order.

    The last line is left out where a killed process has cut it short; any other broken line is a
    UserError with its number.
    """
    with refusing(f"{path}: cannot be read", "give a run folder written by training", ValueError):
        lines = read_bytes(path, MAX_BYTES).splitlines(keepends=True)
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_parse(line, f"{path}, line {number}"))
        except UserError:
            if number < len(lines) or line.endswith(b"\n"):
                raise
    return records


def _parse(line: bytes, where: str) -> Record:
    remedy = "the file is damaged; restore it from a copy"
    values = parse_object(line.decode("utf-8", errors="replace"), where, remedy)
    kind = values.get("kind", str)
    if kind not in KINDS:
        raise UserError(f"{where}: 'kind' is {kind!r}; expected {' or '.join(KINDS)}")
    return values.as_(KINDS[kind])
