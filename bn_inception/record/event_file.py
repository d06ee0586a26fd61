"""One TensorBoard event file, in TensorBoard's own protocol buffers and record format.

TensorBoard's EventFileWriter, which torch's SummaryWriter is made of, would do but for three
things: a full disk is a traceback of its thread and not the run's one line of error, the point that
is due when a run is killed is still in its queue, and the host's name is in the file's name, which
goes along where a run folder is given away.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bn_inception.errors import UserError
from bn_inception.files import first_line

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary


class EventFile:
    """One run in TensorBoard's eyes: an event file in `folder`, continuing those already there.

    Args:
        folder: created if missing.
        purge_step: TensorBoard drops what earlier files of the folder hold at this x and after.

    Raises:
        UserError: the file cannot be written; also from every method that writes.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        try:
            folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files of a run in the order of their names.
            earlier = [path.name for path in folder.glob("events.out.tfevents.*")]
            number = int(max(earlier).rpartition(".")[2]) + 1 if earlier else 0
            file = (folder / f"events.out.tfevents.{number:05d}").open("wb")
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({first_line(error)}); choose another run.root"
            ) from error
        self._writer = RecordWriter(file)
        self._write(Event(file_version="brain.Event:2"))
        # TensorBoard purges from the second START of a run on, so the first file needs one too.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=purge_step, session_log=start))

    def scalars(self, x: int, values: Mapping[str, float]) -> None:
        """Write one point a tag."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        if points:
            self.add(Summary(value=points), x)

    def add(self, summary: "Summary", x: int) -> None:
        """Write a summary of any kind."""
        from tensorboard.compat.proto.event_pb2 import Event

        self._write(Event(step=x, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, event: "Event") -> None:
        event.wall_time = time.time()
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as error:
            raise UserError(
                f"TensorBoard events cannot be written ({first_line(error)}); "
                "make room, then continue with run.resume=must"
            ) from error
