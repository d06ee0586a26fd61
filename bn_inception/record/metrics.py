"""`metrics.jsonl`: the record of a run, one JSON object a line.

A metric is one line of a record's class: its name in the file, its TensorBoard tag, how the
terminal shows it. Whoever measures makes the record; recorder, mirror and console pass it on.
A value that is not finite (the loss of a diverging run) is written as null: JSON has no NaN.
"""

import json
import math
import os
import zlib
from dataclasses import asdict, dataclass, field, fields
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

from bn_inception.errors import UserError
from bn_inception.fields import FRACTION, parse_object
from bn_inception.files import first_line, read_bytes, write_bytes

MAX_BYTES = 1 << 30
"""The paper's longest run logs 200 MB."""


def _metric(tag: str, shown: str = "", *, fraction: bool = False) -> dict[str, Any]:
    """What a field says about a number that is measured.

    Args:
        tag: in TensorBoard; {layer} in it is the record's.
        shown: on the terminal, such as "loss {:.3f}"; empty for not.
        fraction: whether a file must hold a number in [0, 1].
    """
    return {"tag": tag, "shown": shown, FRACTION: fraction}


@dataclass(frozen=True)
class Record:
    """What was measured at `step`.

    Attributes:
        step: updates done.
        equivalent_steps: images seen / 32; None in files that do not say.
    """

    kind: ClassVar[str]

    step: int
    equivalent_steps: float | None

    @property
    def scalars(self) -> dict[str, float]:
        """The finite metrics by TensorBoard tag."""
        return {
            metric.metadata["tag"].format_map(vars(self)): value
            for metric in fields(self)
            if "tag" in metric.metadata
            and (value := getattr(self, metric.name)) is not None
            and math.isfinite(value)
        }

    @property
    def shown(self) -> dict[str, str]:
        """The metrics that the terminal shows, as texts by tag."""
        return {
            metric.metadata["tag"]: metric.metadata["shown"].format(value)
            for metric in fields(self)
            if metric.metadata.get("shown") and (value := getattr(self, metric.name)) is not None
        }


@dataclass(frozen=True)
class TrainRecord(Record):
    """Training over one log interval that ends at `step`.

    Attributes:
        loss: mean over the interval, cross-entropy in nats; None where it was not finite.
        learning_rate: of the update at `step`.
        images_per_second: over the interval.
        top1: fraction of the interval's training images classified correctly, or None.
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
    """One evaluation on the whole held-out set.

    Attributes:
        loss: mean cross-entropy in nats; None where it was not finite.
        top1, top5: fractions of the `count` images.
        statistics: of BN that the network was judged with: `population`; None without BN, and in
            files that do not say.
        population_batches: training mini-batches over which Algorithm 2 took them.
    """

    kind: ClassVar[str] = "validation"

    loss: float | None = field(metadata=_metric("loss/validation"))
    top1: float = field(metadata=_metric("accuracy/validation_top1", "top-1 {:.2%}", fraction=True))
    top5: float = field(metadata=_metric("accuracy/validation_top5", fraction=True))
    count: int
    statistics: str | None = None
    population_batches: int | None = None


def _input(name: str) -> Any:
    return field(metadata=_metric(f"probe/{{layer}}/{name}"))


@dataclass(frozen=True)
class ProbeRecord(Record):
    """A look into one layer in the forward and backward pass of update number `step`.

    The values are those that go into its nonlinearity: of the first channel (`channel_`), and of
    all of the layer. None where one was not finite.

    Attributes:
        layer: its name, such as `3a.conv_3x3`.
        channel_p15, channel_p50, channel_p85, p15, p50, p85: percentiles.
        channel_mean, channel_deviation, mean, deviation: mean and standard deviation.
        saturated: fraction of a sigmoid's inputs with a slope under a tenth of the greatest;
            None for other nonlinearities.
        gradient_to_weight: norm of the gradient of the loss, without L2 regularization, over the
            norm of the weight.
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

    A line cut short by a killed process is removed on opening, so that the next one starts afresh.

    Attributes:
        lines: in the file.
        checksum: CRC-32 of the file.

    Raises:
        UserError: the file cannot be written (no permission, disk full).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_bytes(path, whole)
        self.lines = whole.count(b"\n")
        self.checksum = zlib.crc32(whole)
        self._file = self._open()

    def append(self, record: Record) -> None:
        """Write one line."""
        values = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(record).items()
        }
        line = rest = json.dumps({"kind": record.kind, **values}, allow_nan=False).encode() + b"\n"
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._cannot_write(error) from error
        self.lines += 1
        self.checksum = zlib.crc32(line, self.checksum)

    def truncate(
        self, step: int, lines: int | None = None, checksum: int | None = None
    ) -> list[Record]:
        """Go back to the state at `step`: drop every record of a later step.

        Args:
            step: the step of the checkpoint that training continues from.
            lines: the number of lines when the checkpoint was made; what follows them is
                dropped too, unread. It settles what belongs to a checkpoint made between the
                update and the evaluation of one and the same step.
            checksum: CRC-32 of those lines when the checkpoint was made.

        Returns:
            The records kept, in order.

        Raises:
            UserError: the file has fewer than `lines` lines, others than the checkpoint was made
                with, or a line to keep is broken.
        """
        raw = self._path.read_bytes().splitlines(keepends=True)
        if lines is not None and len(raw) < lines:
            raise UserError(
                f"{self._path}: {len(raw)} lines, but the checkpoint at step {step} was made "
                f"with {lines}; restore the file, or start a new run under another run.name"
            )
        parsed = [
            (_parse(line, f"{self._path}, line {number}"), line)
            for number, line in enumerate(raw[:lines], start=1)
        ]
        if checksum not in (None, zlib.crc32(b"".join(raw[:lines]))):
            raise UserError(
                f"{self._path}: other lines than those with which the checkpoint at step {step} "
                "was made; restore the file, or start a new run under another run.name"
            )
        kept = [(record, line) for record, line in parsed if record.step <= step]
        content = b"".join(line for _, line in kept)
        if len(kept) < len(raw):
            self._file.close()
            write_bytes(self._path, content)
            self._file = self._open()
        self.lines, self.checksum = len(kept), zlib.crc32(content)
        return [record for record, _ in kept]

    def sync(self) -> None:
        """Put every line on disk: what a checkpoint counts on must survive a power cut too."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Close the file; the log takes no further records."""
        self._file.close()

    def _open(self) -> FileIO:
        # Unbuffered: forked loader workers inherit no half-written line, and closing cannot fail.
        try:
            return self._path.open("ab", buffering=0)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"{self._path}: cannot be written ({first_line(error)}); "
            "make room, then continue with run.resume=must"
        )


def read_metrics(path: Path) -> list[Record]:
    """Read a `metrics.jsonl`, in order.

    The last line is left out where a killed process has cut it short; any other broken line is
    an error.

    Raises:
        UserError: the file cannot be read, or a line is broken (named by its number).
    """
    try:
        lines = read_bytes(path, MAX_BYTES).splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); give a run folder written by training"
        ) from error
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
