"""The fingerprint of how images are read."""

import numpy as np
import pytest
from PIL import Image

from bn_inception.data import Backend, preprocessing
from bn_inception.data.pixels import crops


def test_it_is_the_same_every_time_and_plain_text() -> None:
    once = preprocessing.describe(Backend.pillow)
    assert once == preprocessing.describe(Backend.pillow)
    assert all(isinstance(value, str) for value in once.values())
    assert once["decoder"].startswith("Pillow ")
    assert preprocessing.differences(once, preprocessing.describe(Backend.pillow)) == []


def test_another_resize_shows_in_the_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = preprocessing.describe(Backend.pillow)

    def nearest(picture: crops.Picture, size: int) -> np.ndarray:
        box = crops.single_crop(picture.width, picture.height, size)
        return picture.resized(box, size, Image.Resampling.NEAREST).transpose(2, 0, 1)

    monkeypatch.setattr(preprocessing, "cut_single", nearest)
    after = preprocessing.describe(Backend.pillow)
    assert {key for key in before if before[key] != after[key]} == {"crops", "values"}


def test_differences_are_named() -> None:
    now = preprocessing.describe(Backend.pillow)
    then = {**now, "decoder": "Pillow 9.1", "extra": "x"}
    assert preprocessing.differences(then, now) == [
        f"decoder: Pillow 9.1 in training, {now['decoder']} now",
        "extra: x in training, unknown now",
    ]
