"""`metrics.jsonl`: the record of a run, one JSON object a line.

A value that is not finite (the loss of a diverging run) is written as null: JSON has no NaN.
"""

import json
import math
import os
import zlib
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

from bn_inception.errors import UserError
from bn_inception.fields import Fields, parse_object
from bn_inception.record.atomic import write_bytes

MAX_BYTES = 1 << 30
"""The paper's longest run logs 200 MB."""


@dataclass(frozen=True)
class TrainRecord:
    """Training over one log interval that ends at `step`.

    Attributes:
        step: updates done.
        equivalent_steps: images seen / 32; None in files that do not say.
        loss: mean over the interval, cross-entropy in nats; None where it was not finite.
        learning_rate: of the update at `step`.
        images_per_second: over the interval.
        top1: fraction of the interval's training images classified correctly, or None.
    """

    kind: ClassVar[str] = "train"

    step: int
    equivalent_steps: float | None
    loss: float | None
    learning_rate: float
    images_per_second: float | None
    top1: float | None = None


@dataclass(frozen=True)
class ValidationRecord:
    """One evaluation on the whole held-out set.

    Attributes:
        step: updates done.
        equivalent_steps: images seen / 32; None in files that do not say.
        loss: mean cross-entropy in nats; None where it was not finite.
        top1, top5: fractions of the `count` images.
        statistics: of BN that the network was judged with: `population`; None without BN, and in
            files that do not say.
        population_batches: training mini-batches over which Algorithm 2 took them.
    """

    kind: ClassVar[str] = "validation"

    step: int
    equivalent_steps: float | None
    loss: float | None
    top1: float
    top5: float
    count: int
    statistics: str | None = None
    population_batches: int | None = None


Record = TrainRecord | ValidationRecord


class MetricsLog:
    """Appends records to `metrics.jsonl`; each line reaches the operating system at once.

    A line cut short by a killed process is removed on opening, so that the next one starts afresh.

    Raises:
        UserError: the file cannot be written (no permission, disk full).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_bytes(path, whole)
        self._lines = whole.count(b"\n")
        self._checksum = zlib.crc32(whole)
        self._file = self._open()

    @property
    def lines(self) -> int:
        """Lines in the file."""
        return self._lines

    @property
    def checksum(self) -> int:
        """CRC-32 of the file."""
        return self._checksum

    def append(self, record: Record) -> None:
        """Write one line."""
        values: dict[str, Any] = {"kind": record.kind}
        for name, value in asdict(record).items():
            not_finite = isinstance(value, float) and not math.isfinite(value)
            values[name] = None if not_finite else value
        line = rest = json.dumps(values, allow_nan=False).encode() + b"\n"
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._cannot_write(error) from error
        self._lines += 1
        self._checksum = zlib.crc32(line, self._checksum)

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
        kept: list[Record] = []
        content: list[bytes] = []
        for number, line in enumerate(raw[:lines], start=1):
            record = _parse(line, f"{self._path}, line {number}")
            if record.step <= step:
                kept.append(record)
                content.append(line)
        if checksum not in (None, zlib.crc32(b"".join(raw[:lines]))):
            raise UserError(
                f"{self._path}: other lines than those with which the checkpoint at step {step} "
                "was made; restore the file, or start a new run under another run.name"
            )
        if content != raw:
            self._file.close()
            write_bytes(self._path, b"".join(content))
            self._file = self._open()
        self._lines = len(content)
        self._checksum = zlib.crc32(b"".join(content))
        return kept

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
            f"{self._path}: cannot be written ({error.strerror}); "
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
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: over {MAX_BYTES >> 20} MiB, no record of a run")
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a run folder written by training"
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
    fields = parse_object(line.decode("utf-8", errors="replace"), where, remedy)
    kind = fields.text("kind")
    if kind == TrainRecord.kind:
        return TrainRecord(
            **_common(fields),
            learning_rate=fields.number("learning_rate"),
            images_per_second=fields.optional_number("images_per_second"),
            top1=fields.optional_number("top1"),
        )
    if kind == ValidationRecord.kind:
        return ValidationRecord(
            **_common(fields),
            top1=fields.fraction("top1"),
            top5=fields.fraction("top5"),
            count=fields.count("count"),
            statistics=fields.optional_text("statistics"),
            population_batches=fields.optional_count("population_batches"),
        )
    raise UserError(f"{where}: 'kind' is {kind!r}; expected train or validation")


def _common(fields: Fields) -> dict[str, Any]:
    return {
        "step": fields.count("step"),
        "equivalent_steps": fields.optional_number("equivalent_steps"),
        "loss": fields.optional_number("loss"),
    }
