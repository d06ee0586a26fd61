"""The fingerprint of how images are read."""

import numpy as np
import pytest
from PIL import Image

from bn_inception.data import crops, preprocessing


def test_it_is_the_same_every_time_and_plain_text() -> None:
    once = preprocessing.describe()
    assert once == preprocessing.describe()
    assert all(isinstance(value, str) for value in once.values())
    assert once["decoder"].startswith("Pillow ")
    assert preprocessing.differences(once, preprocessing.describe()) == []


def test_another_resize_shows_in_the_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = preprocessing.describe()

    def nearest(image: Image.Image, size: int) -> np.ndarray:
        box = crops.single_crop(image.width, image.height, size)
        cut = image.resize((size, size), Image.Resampling.NEAREST, box=box)
        return np.asarray(cut).transpose(2, 0, 1)

    monkeypatch.setattr(preprocessing, "cut_single", nearest)
    after = preprocessing.describe()
    assert {key for key in before if before[key] != after[key]} == {"crops", "values"}


def test_differences_are_named() -> None:
    now = preprocessing.describe()
    then = {**now, "decoder": "Pillow 9.1", "extra": "x"}
    assert preprocessing.differences(then, now) == [
        f"decoder: Pillow 9.1 in training, {now['decoder']} now",
        "extra: x in training, unknown now",
    ]
