"""The TensorBoard mirror of `metrics.jsonl`, against image-equivalent steps (images seen / 32).

A metric's tag stands at its field in `record.metrics`. Besides these there are `accuracy/
maximum_top1` (the best so far), `steps_to/20%` (the step that first met a milestone),
`training_batch` (the first mini-batch as the network gets it) and the hparams page.

The events are written in TensorBoard's own protocol buffers and record format. Its EventFileWriter
would do but for three things: a full disk is a traceback of its thread and not the run's one line
of error, the point that is due when a run is killed is still in its queue, and the host's name is
in the file's name, which goes along where a run folder is given away.
"""

import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bn_inception.errors import UserError
from bn_inception.files import first_line
from bn_inception.record.metrics import Record, ValidationRecord
from bn_inception.record.summary import Summary

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

HyperparameterValue = bool | int | float | str

_GRID_IMAGES = 64
"""At most so many images of a mini-batch are shown: 64 of 224 pixels are a PNG of some 6 MB."""
_GRID_LINE = 2
"""Pixels between two images."""


class TensorBoardMirror:
    """Shows the records of one run in `folder`, in an event file that continues those there.

    TensorBoard drops what these hold beyond the `kept` records. Every method that writes raises
    UserError where it cannot.
    """

    def __init__(
        self,
        folder: Path,
        hyperparameters: Mapping[str, HyperparameterValue],
        summary: Summary,
        kept: Sequence[Record] = (),
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
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
        # The picture at step 0 is drawn anew only by a run that starts there.
        last = _axis(kept[-1]) if kept else min(summary.step, 1)
        # TensorBoard purges from the second START of a run on, so the first file needs one too.
        self._write(Event(step=last, session_log=SessionLog(status=SessionLog.START)))
        # The purge takes the points at the last kept x with it; several records share it.
        for record in kept:
            if _axis(record) == last:
                self.record(record, summary)
        # The page makes one row of all runs of one trial: "" is none.
        self._write(Event(step=0, summary=hparams_pb(dict(hyperparameters), trial_id="")))

    def record(self, record: Record, summary: Summary) -> None:
        """Add one record; `summary` has the best and the milestones as they stand after it."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary as Values

        x, points = _axis(record), record.scalars
        if isinstance(record, ValidationRecord):
            if summary.best is not None:
                points["accuracy/maximum_top1"] = summary.best.top1
            for milestone in summary.milestones:
                if milestone.step == record.step:
                    points[f"steps_to/{100 * milestone.target:.6g}%"] = x
        values = [Values.Value(tag=tag, simple_value=value) for tag, value in points.items()]
        if values:
            self._write(Event(step=x, summary=Values(value=values)))

    def training_batch(self, pixels: NDArray[np.uint8]) -> None:
        """Show the first 64 images of a mini-batch, uint8 (N, height, width, 3), RGB, as one."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary as Values

        grid, buffer = _grid(pixels[:_GRID_IMAGES]), io.BytesIO()
        Image.fromarray(grid).save(buffer, format="PNG")
        height, width, colours = grid.shape
        png = Values.Image(
            height=height, width=width, colorspace=colours, encoded_image_string=buffer.getvalue()
        )
        values = Values(value=[Values.Value(tag="training_batch", image=png)])
        self._write(Event(step=0, summary=values))

    def close(self) -> None:
        """Close the event file."""
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


def _axis(record: Record) -> int:
    return round(record.equivalent_steps)


def _grid(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images in rows of about as many as there are rows, grey between."""
    count, height, width, _ = pixels.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    down, across = height + _GRID_LINE, width + _GRID_LINE
    grid = np.full((rows * down - _GRID_LINE, columns * across - _GRID_LINE, 3), 128, np.uint8)
    for number, image in enumerate(pixels):
        top, left = number // columns * down, number % columns * across
        grid[top : top + height, left : left + width] = image
    return grid
