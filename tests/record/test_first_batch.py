"""The picture of the first mini-batch, from a real run."""

import io

import numpy as np
from PIL import Image
from small_runs import TINY
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from bn_inception.cli.main import dispatch
from bn_inception.data import (
    AugmentationConfig,
    DataConfig,
    DataKind,
    OnError,
    TrainingOrder,
    open_sources,
    to_input,
    training_batches,
)
from bn_inception.data.pixels.photometric import Photometric


def test_the_picture_is_what_the_network_was_given(images, tmp_path):
    arguments = [*TINY, "recipe=bn_x5", "train.steps=2", "run.name=a", f"run.root={tmp_path}"]
    assert dispatch(["train", *arguments, f"data.root={images}"]) == 0
    accumulator = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    accumulator.Reload()
    (event,) = accumulator.Tensors("training_batch")
    _, _, png = make_ndarray(event.tensor_proto)
    grid = np.asarray(Image.open(io.BytesIO(png)))
    assert event.step == 0
    # Eight images of 16 pixels in three rows of three, two pixels between.
    assert grid.shape == (3 * 18 - 2, 3 * 18 - 2, 3)

    config = DataConfig(kind=DataKind.folder, root=str(images), workers=0)
    source = open_sources(config).train
    order = TrainingOrder(len(source), 8, 0, True, 1251)
    batch = next(
        training_batches(
            source,
            order,
            start_step=0,
            stop_step=1,
            image_size=16,
            augmentation=AugmentationConfig(photometric=Photometric.reduced),
            seed=0,
            workers=0,
            on_error=OnError.fail,
            backend=config.backend,
        )
    )
    expected = (to_input(batch.images, batch.factors).permute(0, 2, 3, 1) + 1) * 127.5
    for number, image in enumerate(expected.numpy()):
        top, left = number // 3 * 18, number % 3 * 18
        shown = grid[top : top + 16, left : left + 16]
        assert np.abs(shown - image).max() <= 0.51
        # The colour of its class stands out: red, green and blue are in their places.
        assert shown.mean((0, 1)).argmax() == batch.labels[number] % 3
