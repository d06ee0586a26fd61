"""The recorder of a process that does not write: it knows what the writing one knows."""

from typing import Any

from bn_inception.record.metrics import MetricsLog, Record
from bn_inception.record.recorder import Recorder
from bn_inception.record.tensorboard import TensorBoardMirror


class SilentRecorder(Recorder):
    """Keeps best, milestones and summary like `Recorder`, and touches no file.

    For every process of a run but the first, so that the training loop need not ask which it is in.
    """

    def _open_log(self) -> MetricsLog:
        return _NoLog()

    def _open_mirror(self, *arguments: Any, **named: Any) -> TensorBoardMirror:
        return _NoMirror()

    def _write_summary(self) -> None:
        pass


class _NoLog(MetricsLog):
    def __init__(self) -> None:
        self._lines = self._checksum = 0

    def append(self, record: Record) -> None:
        pass

    def truncate(
        self, step: int, lines: int | None = None, checksum: int | None = None
    ) -> list[Record]:
        return []

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class _NoMirror(TensorBoardMirror):
    def __init__(self) -> None:
        pass

    def record(self, *arguments: Any, **named: Any) -> None:
        pass

    def training_batch(self, pixels: Any) -> None:
        pass

    def end(self, succeeded: bool) -> None:
        pass

    def close(self) -> None:
        pass
