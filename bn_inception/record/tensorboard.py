"""The TensorBoard mirror of `metrics.jsonl`, against image-equivalent steps (images seen / 32).

A metric's tag stands at its field in `record.metrics`. Besides these there are `accuracy/
maximum_top1` (the best so far), `steps_to/20%` (the step that first met a milestone),
`training_batch` (the first mini-batch as the network gets it), the hparams page, on which the best
and the milestones are a run's metrics, and the custom-scalars page with charts of all runs.

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

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary as Values
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from bn_inception.files import refusing
from bn_inception.record.metrics import Record, ValidationRecord
from bn_inception.record.summary import Milestone, Summary

_MAXIMUM_TOP1 = "accuracy/maximum_top1"
# Patterns are matched at the beginning of a tag.
_CHARTS = {
    "validation accuracy, top-1": "accuracy/validation_top1$",
    "learning rate": "learning_rate$",
}
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
        hyperparameters: Mapping[str, bool | float | str],
        summary: Summary,
        kept: Sequence[Record] = (),
    ) -> None:
        with refusing(f"{folder}: cannot be written", "choose another run.root"):
            folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files of a run in the order of their names.
            earlier = [path.name for path in folder.glob("events.out.tfevents.*")]
            number = int(max(earlier).rpartition(".")[2]) + 1 if earlier else 0
            file = (folder / f"events.out.tfevents.{number:05d}").open("wb")
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
        for page in (*_hparams(hyperparameters, summary), _custom_scalars()):
            self._write(Event(step=0, summary=page))

    def record(self, record: Record, summary: Summary) -> None:
        """Add one record; `summary` has the best and the milestones as they stand after it."""
        x, points = _axis(record), record.scalars
        if isinstance(record, ValidationRecord):
            if summary.best is not None:
                points[_MAXIMUM_TOP1] = summary.best.top1
            for milestone in summary.milestones:
                if milestone.step == record.step:
                    points[_steps_to(milestone)] = x
        values = [Values.Value(tag=tag, simple_value=value) for tag, value in points.items()]
        if values:
            self._write(Event(step=x, summary=Values(value=values)))

    def training_batch(self, pixels: NDArray[np.uint8]) -> None:
        """Show the first 64 images of a mini-batch, uint8 (N, height, width, 3), RGB, as one."""
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

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        remedy = "make room, then continue with run.resume=must"
        with refusing("TensorBoard events cannot be written", remedy):
            self._writer.write(event.SerializeToString())
            self._writer.flush()


def _axis(record: Record) -> int:
    return round(record.equivalent_steps)


def _steps_to(milestone: Milestone) -> str:
    return f"steps_to/{100 * milestone.target:.6g}%"


def _hparams(hyperparameters: Mapping[str, bool | float | str], summary: Summary) -> list[Values]:
    """The columns of the hparams page, and the run's own values."""
    # Without values of a domain, so that those of other runs are shown too.
    columns = [
        hparams.HParam(name, hparams.Discrete((), type(value)))
        for name, value in hyperparameters.items()
    ]
    metrics = [hparams.Metric(_MAXIMUM_TOP1, display_name="maximum top-1")]
    metrics += [
        hparams.Metric(
            _steps_to(milestone), display_name=f"steps to {100 * milestone.target:.6g} %"
        )
        for milestone in summary.milestones
    ]
    # The page makes one row of all runs of one trial: "" is none.
    own = hparams.hparams_pb(dict(hyperparameters), trial_id="")
    return [hparams.hparams_config_pb(columns, metrics), own]


def _custom_scalars() -> Values:
    layout = layout_pb2.Layout()
    category = layout.category.add(title="All runs")
    for title, tag in _CHARTS.items():
        category.chart.add(title=title).multiline.tag.append(tag)
    value = Values.Value(
        tag=metadata.CONFIG_SUMMARY_TAG,
        tensor=make_tensor_proto(layout.SerializeToString()),
        metadata=metadata.create_summary_metadata(),
    )
    return Values(value=[value])


def _grid(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images in rows of about as many as there are rows, grey between."""
    count, height, width, _ = pixels.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    down, across = height + _GRID_LINE, width + _GRID_LINE
    grid = np.full((rows * columns, down, across, 3), 128, np.uint8)
    grid[:count, :height, :width] = pixels
    lines = grid.reshape(rows, columns, down, across, 3).swapaxes(1, 2)
    return lines.reshape(rows * down, columns * across, 3)[:-_GRID_LINE, :-_GRID_LINE]
