"""The fast backend resizes near to Pillow, filter by filter."""

import itertools
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import encoded, photo

from bn_inception.data.pixels.backend import Backend, open_picture
from bn_inception.data.pixels.crops import FILTERS, training_crop

NAME = "n01440764_1.JPEG"
BILINEAR, BOX, NEAREST, BICUBIC = FILTERS
names = pytest.mark.parametrize("resample", FILTERS, ids=lambda resample: resample.name)

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


def hard(seed: int, size: tuple[int, int]) -> Image.Image:
    """Black, white and pure colours side by side: the worst for every filter."""
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).choice([0, 255], shape).astype(np.uint8))


def generated(kind: str) -> list[bytes]:
    make = {"smooth": photo, "hard": hard}[kind]
    sizes = [(40 + 31 * n, 50 + 17 * n) for n in range(8)]
    ways = itertools.cycle(["4:2:0", "4:4:4", "4:2:2"])
    return [
        encoded(make(n, size), quality=90, subsampling=next(ways), progressive=n == 3)
        for n, size in enumerate(sizes)
    ]


@pytest.fixture(scope="module", params=["photographs", "smooth", "hard"])
def jpegs(request: pytest.FixtureRequest) -> tuple[str, list[bytes]]:
    """Real photographs where there are any, and JPEGs made here."""
    if request.param != "photographs":
        return request.param, generated(request.param)
    with ZipFile(request.getfixturevalue("shared_data") / "imagenet-300.zip") as archive:
        files = [name for name in archive.namelist() if name.endswith(".JPEG")][::23]
        return request.param, [archive.read(name) for name in files]


def boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [training_crop(width, height, np.random.default_rng(seed)) for seed in range(3)]


@names
def test_resizing(jpegs: tuple[str, list[bytes]], resample: Image.Resampling) -> None:
    kind, images = jpegs
    largest, mean = RESIZE[kind][resample]
    for data in images:
        fast, pillow = (open_picture(data, NAME, backend) for backend in Backend)
        for size, box in itertools.product((224, 64), boxes(fast.width, fast.height)):
            one, other = (each.resized(box, size, resample) for each in (fast, pillow))
            apart = np.abs(one.astype(int) - other)
            assert apart.max() <= largest and apart.mean() <= mean


@given(st.integers(1, 250), st.integers(1, 250), st.integers(1, 300), st.integers(0, 1000))
@settings(max_examples=60)
def test_nearest_and_box_are_at_most_one_pixel_aside(
    width: int, height: int, size: int, seed: int
) -> None:
    where = np.zeros((height, width, 3), np.uint8)
    where[:, :, 0], where[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    data = encoded(Image.fromarray(where), "PNG")
    box = training_crop(width, height, np.random.default_rng(seed))
    fast, pillow = (open_picture(data, NAME, backend) for backend in Backend)
    for resample in (NEAREST, BOX):
        one, other = (each.resized(box, size, resample) for each in (fast, pillow))
        assert np.abs(one.astype(int) - other).max() <= 1
