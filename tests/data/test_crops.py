"""Crop geometry, that cutting does what the boxes say, and how the two backends resize."""

import itertools
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import photo

from bn_inception.data.pixels.backend import Backend, PillowPicture, as_picture
from bn_inception.data.pixels.crops import (
    FILTERS,
    cut_single,
    cut_training,
    single_crop,
    training_crop,
)
from bn_inception.data.pixels.decode import decode

sides = st.integers(1, 3000)


@given(sides, sides, st.integers(0, 2**32))
@settings(max_examples=400)
def test_training_boxes_lie_inside_with_area_and_aspect_in_bounds(width, height, seed):
    left, top, right, bottom = training_crop(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    if min(width, height) > 150 and 0.5 <= width / height <= 2:
        rounding = 0.03  # whole pixels: at most half a pixel on sides of 40 or more
        assert 0.08 * (1 - rounding) <= w * h / (width * height) <= 1
        assert 3 / 4 * (1 - rounding) <= w / h <= 4 / 3 * (1 + rounding)


def test_distribution_of_area_aspect_and_place():
    random = np.random.default_rng(0)
    boxes = np.array([training_crop(1000, 1000, random) for _ in range(4000)], dtype=np.float64)
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, aspect = w * h / 1e6, np.log(w / h)
    # Uniform up to 3/4, where every aspect fits; above, shapes that do not fit are drawn again.
    counts, _ = np.histogram(area, bins=np.linspace(0.08, 0.74, 7))
    assert counts.min() > 0.85 * counts.mean()
    assert counts.max() < 1.15 * counts.mean()
    assert abs(aspect.mean()) < 0.01  # as often wide as tall
    small = area < 0.74
    assert abs(aspect[small].std() - 2 * np.log(4 / 3) / np.sqrt(12)) < 0.01
    place = boxes[small, 0] / (1000 - w[small])
    assert abs(place.mean() - 0.5) < 0.02
    assert abs(place.std() - 1 / np.sqrt(12)) < 0.02


@pytest.mark.parametrize(("width", "height", "share"), [(500, 375, 0.09), (64, 64, 0.16)])
def test_large_crops_are_rarer_than_uniform(width, height, share):
    """Above three quarters of the image few shapes fit: docs/fidelity.md gives these numbers."""
    random = np.random.default_rng(0)
    boxes = np.array([training_crop(width, height, random) for _ in range(10_000)])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (width * height)
    assert abs((area > 0.75).mean() - share) < 0.01  # 0.27 if it were uniform in 0.08 to 1


@pytest.mark.parametrize(("width", "height"), [(2000, 100), (100, 2000)])
def test_an_impossible_shape_falls_back_to_the_centre(width, height):
    # 8 % of 2000x100 at aspect 4/3 is 146x110 pixels: no drawn shape can fit.
    left, top, right, bottom = training_crop(width, height, np.random.default_rng(0))
    assert (right - left, bottom - top) == ((133, 100) if width > height else (100, 133))
    assert abs((left + right) - width) <= 1
    assert abs((top + bottom) - height) <= 1


@given(sides, sides, st.integers(8, 400))
def test_single_crop_is_a_centred_square(width, height, size):
    left, top, right, bottom = single_crop(width, height, size)
    assert right - left == pytest.approx(bottom - top)
    assert left == pytest.approx(width - right)
    assert top == pytest.approx(height - bottom)
    assert left >= 0 and top >= 0 and right - left <= min(width, height)
    assert single_crop(512, 1024, 224) == (32, 288, 480, 736)  # the paper's, of twice the size


def test_cut_single_equals_resize_then_centre():
    image = photo(3, (500, 375))
    scale = 256 / 375
    whole = image.resize((round(500 * scale), 256), Image.Resampling.BILINEAR)
    left = round((whole.width - 224) / 2)
    expected = np.asarray(whole.crop((left, 16, left + 224, 240))).transpose(2, 0, 1)
    cut = cut_single(PillowPicture(image), 224)
    assert cut.shape == (3, 224, 224) and cut.dtype == np.uint8
    difference = np.abs(cut.astype(int) - expected.astype(int))
    assert difference.mean() < 1  # half a pixel of the longer side, by its rounding


def test_cut_training_draws_mirror_and_every_filter():
    asked = []

    class Ramp(PillowPicture):
        def resized(self, box, size, resample):
            asked.append(resample)
            return super().resized(box, size, resample)

    ramp = Ramp(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))).convert("RGB"))
    cuts = [cut_training(ramp, 32, np.random.default_rng(seed)) for seed in range(400)]
    assert all(cut.shape == (3, 32, 32) and cut.dtype == np.uint8 for cut in cuts)
    assert 160 < sum(int(cut[0, 0, 0]) > int(cut[0, 0, -1]) for cut in cuts) < 240
    assert all(70 < asked.count(resample) < 130 for resample in FILTERS)
    assert np.array_equal(cuts[5], cut_training(ramp, 32, np.random.default_rng(5)))


BILINEAR, BOX, NEAREST, BICUBIC = FILTERS

# Largest and mean difference from Pillow in grey levels that resizing equal pixels may make.
#
# Bilinear and cubic: Pillow resizes across and then down, fast_image_resize down and then across,
# and each rounds to 8 bits between. A cubic overshoots at edges, and what is clipped there differs.
# Nearest and box: where a sample or a window's border falls exactly between two pixels, floating
# point decides which is taken, and a row or column may be its neighbour's
# (`test_nearest_and_box_are_at_most_one_pixel_aside`).
RESIZE = {
    "photographs": {BILINEAR: (2, 0.3), BOX: (255, 0.6), NEAREST: (255, 2.0), BICUBIC: (32, 0.4)},
    "smooth": {BILINEAR: (1, 0.2), BOX: (16, 0.1), NEAREST: (24, 0.5), BICUBIC: (3, 0.3)},
    "hard": {BILINEAR: (2, 0.3), BOX: (128, 4.0), NEAREST: (255, 20.0), BICUBIC: (48, 6.0)},
}


def hard(seed, size):
    """Black, white and pure colours side by side: the worst for every filter."""
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).choice([0, 255], shape).astype(np.uint8))


def apart(image, box, size, resample):
    """How far the fast backend's pixels are from Pillow's."""
    fast, pillow = (
        as_picture(image, "", backend).resized(box, size, resample).astype(int)
        for backend in (Backend.fast, Backend.pillow)
    )
    return np.abs(fast - pillow)


@pytest.mark.parametrize("resample", FILTERS, ids=lambda resample: resample.name)
@pytest.mark.parametrize("kind", RESIZE)
def test_the_fast_backend_resizes_near_to_pillow(kind, resample, request):
    if kind == "photographs":
        with ZipFile(request.getfixturevalue("shared_data") / "imagenet-300.zip") as archive:
            names = [name for name in archive.namelist() if name.endswith(".JPEG")][::23]
            images = [decode(archive.read(name), name) for name in names]
    else:
        make = {"smooth": photo, "hard": hard}[kind]
        images = [make(n, (40 + 31 * n, 50 + 17 * n)) for n in range(8)]
    largest, mean = RESIZE[kind][resample]
    for image, seed, size in itertools.product(images, range(3), (224, 64)):
        box = training_crop(*image.size, np.random.default_rng(seed))
        differences = apart(image, box, size, resample)
        assert differences.max() <= largest and differences.mean() <= mean


@given(st.integers(1, 250), st.integers(1, 250), st.integers(1, 300), st.integers(0, 1000))
@settings(max_examples=60)
def test_nearest_and_box_are_at_most_one_pixel_aside(width, height, size, seed):
    where = np.zeros((height, width, 3), np.uint8)
    where[:, :, 0], where[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    box = training_crop(width, height, np.random.default_rng(seed))
    for resample in (NEAREST, BOX):
        assert apart(Image.fromarray(where), box, size, resample).max() <= 1
