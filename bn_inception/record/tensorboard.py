"""The TensorBoard mirror of `metrics.jsonl`.

Events are written through TensorBoard's own protocol buffers and record format, without torch or
TensorFlow, without a thread (loader workers fork), and without the host name that the usual writers
put into the file name.

tags            | x axis: step
----------------|----------------------------------------------------------------------------
loss            | `loss/train`, `loss/validation`
accuracy        | `accuracy/train_top1`, `accuracy/validation_top1`, `accuracy/validation_top5`
best so far     | `accuracy/maximum_top1`
milestones      | `steps_to/20%`: the step that first met the target, a point when it does
rate and speed  | `learning_rate`, `images_per_second`
images          | `training_batch`: the first mini-batch as the network gets it, once, at step 0

The hparams page shows the best so far and the milestones as a run's metrics. The custom-scalars
page has two charts of all runs: Figure 2 (validation accuracy), and the learning rates.

Where the mini-batch is not the paper's 32, the same tags are written a second time against
image-equivalent steps (images seen / 32), as a run of its own in the folder `equivalent_steps`.
"""

import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bn_inception.errors import UserError
from bn_inception.record.metrics import Record, TrainRecord
from bn_inception.record.milestones import Milestone

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

HyperparameterValue = bool | int | float | str

MAXIMUM_TOP1 = "accuracy/maximum_top1"
TRAINING_BATCH = "training_batch"
# Tag patterns are matched at the beginning of a tag.
_CHARTS = {
    "Figure 2": ("validation accuracy, top-1", "accuracy/validation_top1$"),
    "Learning rate": ("learning rate", "learning_rate$"),
}
_GRID_IMAGES = 64
"""At most so many images of a mini-batch are shown: 64 of 224 pixels are a PNG of some 6 MB."""
_GRID_LINE = 2
"""Pixels between two images."""


class EventFile:
    """One run in TensorBoard's eyes: an event file in `folder`, continuing those already there.

    Args:
        folder: created if missing.
        purge_step: TensorBoard drops what earlier files of the folder hold at this x and after.
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
                f"{folder}: cannot be written ({error.strerror}); choose another run.root"
            ) from error
        self._writer = RecordWriter(file)
        self._write(Event(file_version="brain.Event:2"))
        # TensorBoard purges from the second START of a run on, so the first file needs one too.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=purge_step, session_log=start))

    def scalars(self, x: int, values: Mapping[str, float | None]) -> None:
        """Write one point a tag; what is None or not finite has none."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if value is not None and math.isfinite(value)
        ]
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
                f"TensorBoard events cannot be written ({error.strerror}); "
                "make room, then continue with run.resume=must"
            ) from error


class TensorBoardMirror:
    """Shows the records of one run in `folder` (the run folder's `tensorboard/`).

    Args:
        folder: created if missing.
        hyperparameters: shown on the hparams page of this very run.
        same_axis: whether steps and image-equivalent steps are the same (mini-batch 32).
        milestones: as they stand; their targets are metrics of the hparams page.
        resumed_at: the step of the checkpoint a run continues from; 0 for a new run.
        kept: on resuming, the records that stay; TensorBoard drops everything after them.
    """

    def __init__(
        self,
        folder: Path,
        hyperparameters: Mapping[str, HyperparameterValue],
        *,
        same_axis: bool,
        milestones: Sequence[Milestone] = (),
        resumed_at: int = 0,
        kept: Sequence[Record] = (),
        best_top1: float | None = None,
    ) -> None:
        last = kept[-1] if kept else None
        # What lies at step 0, the first mini-batch, is drawn anew only by a run that starts there.
        begin = min(resumed_at, 1)
        self._steps = EventFile(folder, begin if last is None else last.step)
        self._equivalent_steps = (
            None
            if same_axis
            else EventFile(folder / "equivalent_steps", 0 if last is None else _equivalent(last))
        )
        for summary in [*_session_start(hyperparameters, milestones), _layout()]:
            self._steps.add(summary, 0)
        if last is not None:
            # The purge takes the points at the last kept x with it; several records share it.
            for record in kept:
                if record.step == last.step:
                    self._steps.scalars(record.step, _values(record, best_top1, milestones))
                if self._equivalent_steps and _equivalent(record) == _equivalent(last):
                    values = _values(record, best_top1, milestones, equivalent=True)
                    self._equivalent_steps.scalars(_equivalent(record), values)

    def record(
        self, record: Record, best_top1: float | None, milestones: Sequence[Milestone] = ()
    ) -> None:
        """Add one record.

        Args:
            record: to be shown.
            best_top1: the highest validation accuracy so far.
            milestones: as they stand after it.
        """
        self._steps.scalars(record.step, _values(record, best_top1, milestones))
        if self._equivalent_steps:
            values = _values(record, best_top1, milestones, equivalent=True)
            self._equivalent_steps.scalars(_equivalent(record), values)

    def training_batch(self, pixels: NDArray[np.uint8]) -> None:
        """Show a mini-batch as one image.

        Args:
            pixels: uint8 (N, height, width, 3), RGB; the first 64 are shown, in rows.
        """
        self._steps.add(_image(TRAINING_BATCH, _grid(pixels[:_GRID_IMAGES])), 0)

    def end(self, succeeded: bool) -> None:
        """Mark the end of the run on the hparams page."""
        self._steps.add(_session_end(succeeded), 0)

    def close(self) -> None:
        """Close the event files."""
        self._steps.close()
        if self._equivalent_steps:
            self._equivalent_steps.close()


def _equivalent(record: Record) -> int:
    return record.step if record.equivalent_steps is None else round(record.equivalent_steps)


def _values(
    record: Record,
    best_top1: float | None,
    milestones: Sequence[Milestone],
    equivalent: bool = False,
) -> dict[str, float | None]:
    if isinstance(record, TrainRecord):
        return {
            "loss/train": record.loss,
            "accuracy/train_top1": record.top1,
            "learning_rate": record.learning_rate,
            "images_per_second": record.images_per_second,
        }
    return {
        "loss/validation": record.loss,
        "accuracy/validation_top1": record.top1,
        "accuracy/validation_top5": record.top5,
        MAXIMUM_TOP1: best_top1,
        **{
            _steps_to(milestone.target): _equivalent(record) if equivalent else record.step
            for milestone in milestones
            if milestone.step == record.step
        },
    }


def _steps_to(target: float) -> str:
    return f"steps_to/{100 * target:.6g}%"


def _layout() -> "Summary":
    """The custom-scalars page: one category of one chart for each of `_CHARTS`."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    layout = layout_pb2.Layout()
    for category, (title, tag) in _CHARTS.items():
        chart = layout.category.add(title=category).chart.add(title=title)
        chart.multiline.tag.append(tag)
    summary = Summary()
    value = summary.value.add(
        tag=metadata.CONFIG_SUMMARY_TAG, tensor=make_tensor_proto(layout.SerializeToString())
    )
    value.metadata.plugin_data.plugin_name = metadata.PLUGIN_NAME
    return summary


def _grid(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (N, height, width, 3) in rows of about as many as there are rows, grey between."""
    count, height, width, _ = pixels.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    down, across = height + _GRID_LINE, width + _GRID_LINE
    grid = np.full((rows * down - _GRID_LINE, columns * across - _GRID_LINE, 3), 128, np.uint8)
    for number, image in enumerate(pixels):
        top, left = number // columns * down, number % columns * across
        grid[top : top + height, left : left + width] = image
    return grid


def _image(tag: str, pixels: NDArray[np.uint8]) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    image = Summary.Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        colorspace=3,  # RGB
        encoded_image_string=buffer.getvalue(),
    )
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def _session_start(
    hyperparameters: Mapping[str, HyperparameterValue], milestones: Sequence[Milestone]
) -> "list[Summary]":
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    infos = []
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in hyperparameters.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
            kind = api_pb2.DATA_TYPE_BOOL
        elif isinstance(value, str):
            start.hparams[name].string_value = value
            kind = api_pb2.DATA_TYPE_STRING
        else:
            start.hparams[name].number_value = value
            kind = api_pb2.DATA_TYPE_FLOAT64
        infos.append(api_pb2.HParamInfo(name=name, type=kind))
    metrics = {MAXIMUM_TOP1: "maximum top-1"}
    for milestone in milestones:
        metrics[_steps_to(milestone.target)] = f"steps to {100 * milestone.target:.6g} %"
    metric_infos = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name)
        for tag, name in metrics.items()
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metric_infos)
    return [
        _hparams_summary(metadata.EXPERIMENT_TAG, experiment=experiment),
        _hparams_summary(metadata.SESSION_START_INFO_TAG, session_start_info=start),
    ]


def _session_end(succeeded: bool) -> "Summary":
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE,
        end_time_secs=time.time(),
    )
    return _hparams_summary(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _hparams_summary(tag: str, **content: Any) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    summary = Summary()
    value = summary.value.add(tag=tag, tensor=metadata.NULL_TENSOR)
    value.metadata.plugin_data.plugin_name = metadata.PLUGIN_NAME
    value.metadata.plugin_data.content = data.SerializeToString()
    return summary
