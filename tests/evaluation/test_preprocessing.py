"""The fingerprint of how images are read."""

import numpy as np
import pytest
from PIL import Image

from bn_inception.data import Backend, preprocessing
from bn_inception.data.pixels import crops


def test_another_decoder_or_resize_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = preprocessing.describe(Backend.pillow)
    assert preprocessing.differences(now, preprocessing.describe(Backend.pillow)) == []
    assert preprocessing.differences({**now, "decoder": "Pillow 9.1", "extra": "x"}, now) == [
        f"decoder: Pillow 9.1 in training, {now['decoder']} now",
        "extra: x in training, unknown now",
    ]

    def nearest(picture: crops.Picture, size: int) -> np.ndarray:
        box = crops.single_crop(picture.width, picture.height, size)
        return picture.resized(box, size, Image.Resampling.NEAREST).transpose(2, 0, 1)

    monkeypatch.setattr(preprocessing, "cut_single", nearest)
    after = preprocessing.describe(Backend.pillow)
    assert {key for key in now if now[key] != after[key]} == {"crops", "values"}
