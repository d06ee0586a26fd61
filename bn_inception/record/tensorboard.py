"""The TensorBoard mirror of `metrics.jsonl`.

A metric's tag stands at its field in `record.metrics`. Besides these there are `accuracy/
maximum_top1` (the best so far), `steps_to/20%` (the step that first met a milestone, a point when
it does) and `training_batch` (the first mini-batch as the network gets it, once, at step 0).

The hparams page shows the best so far and the milestones as a run's metrics. The custom-scalars
page has two charts of all runs: Figure 2 (validation accuracy), and the learning rates.

Where the mini-batch is not the paper's 32, the same tags are written a second time against
image-equivalent steps (images seen / 32), as a run of its own in the folder `equivalent_steps`.
"""

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bn_inception.record.event_file import EventFile
from bn_inception.record.metrics import Record, ValidationRecord
from bn_inception.record.milestones import Milestone
from bn_inception.record.summary import Best

if TYPE_CHECKING:
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


class TensorBoardMirror:
    """Shows the records of one run in `folder` (the run folder's `tensorboard/`).

    Args:
        folder: created if missing.
        hyperparameters: shown on the hparams page of this very run.
        same_axis: whether steps and image-equivalent steps are the same (mini-batch 32).
        milestones: as they stand; their targets are metrics of the hparams page.
        resumed_at: the step of the checkpoint a run continues from; 0 for a new run.
        kept: on resuming, the records that stay; TensorBoard drops everything after them.
        best: the highest validation accuracy so far.
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
        best: Best | None = None,
    ) -> None:
        axes: dict[Path, Callable[[Record], int]] = {folder: lambda record: record.step}
        if not same_axis:
            axes[folder / "equivalent_steps"] = _equivalent
        self._files: list[tuple[EventFile, Callable[[Record], int]]] = []
        for path, axis in axes.items():
            # The picture at step 0 is drawn anew only by a run that starts there.
            begin = min(resumed_at, 1) if path == folder else 0
            last = axis(kept[-1]) if kept else begin
            self._files.append((EventFile(path, last), axis))
            # The purge takes the points at the last kept x with it; several records share it.
            for record in kept:
                if axis(record) == last:
                    points = _points(record, axis(record), best, milestones)
                    self._files[-1][0].scalars(axis(record), points)
        self._steps = self._files[0][0]
        for summary in [*_session_start(hyperparameters, milestones), _layout()]:
            self._steps.add(summary, 0)

    def record(
        self, record: Record, best: Best | None, milestones: Sequence[Milestone] = ()
    ) -> None:
        """Add one record.

        Args:
            record: to be shown.
            best: the highest validation accuracy so far.
            milestones: as they stand after it.
        """
        for file, axis in self._files:
            x = axis(record)
            file.scalars(x, _points(record, x, best, milestones))

    def training_batch(self, pixels: NDArray[np.uint8]) -> None:
        """Show a mini-batch as one image.

        Args:
            pixels: uint8 (N, height, width, 3), RGB; the first 64 are shown, in rows.
        """
        self._steps.add(_image(TRAINING_BATCH, _grid(pixels[:_GRID_IMAGES])), 0)

    def end(self, succeeded: bool) -> None:
        """Mark the end of the run on the hparams page."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        self._steps.add(_hparams(metadata.SESSION_END_INFO_TAG, session_end_info=end), 0)

    def close(self) -> None:
        """Close the event files."""
        for file, _ in self._files:
            file.close()


def _equivalent(record: Record) -> int:
    return record.step if record.equivalent_steps is None else round(record.equivalent_steps)


def _points(
    record: Record, x: int, best: Best | None, milestones: Sequence[Milestone]
) -> dict[str, float]:
    points = record.scalars
    if isinstance(record, ValidationRecord):
        if best is not None:
            points[MAXIMUM_TOP1] = best.top1
        points |= {_steps_to(m.target): x for m in milestones if m.step == record.step}
    return points


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
    tensor = make_tensor_proto(layout.SerializeToString())
    return Summary(
        value=[
            Summary.Value(
                tag=metadata.CONFIG_SUMMARY_TAG,
                tensor=tensor,
                metadata=metadata.create_summary_metadata(),
            )
        ]
    )


def _session_start(
    hyperparameters: Mapping[str, HyperparameterValue], milestones: Sequence[Milestone]
) -> "list[Summary]":
    from tensorboard.plugins.hparams import api_pb2, metadata, summary_v2

    kinds = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
    infos = [
        api_pb2.HParamInfo(name=name, type=kinds.get(type(value), api_pb2.DATA_TYPE_FLOAT64))
        for name, value in hyperparameters.items()
    ]
    shown = {MAXIMUM_TOP1: "maximum top-1"} | {
        _steps_to(m.target): f"steps to {100 * m.target:.6g} %" for m in milestones
    }
    metrics = [summary_v2.Metric(tag, display_name=name).as_proto() for tag, name in shown.items()]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    return [
        _hparams(metadata.EXPERIMENT_TAG, experiment=experiment),
        # The page makes one row of all runs of one trial: "" is none.
        summary_v2.hparams_pb(dict(hyperparameters), trial_id=""),
    ]


def _hparams(tag: str, **content: Any) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    return Summary(value=[Summary.Value(tag=tag, tensor=metadata.NULL_TENSOR, metadata=about)])


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
