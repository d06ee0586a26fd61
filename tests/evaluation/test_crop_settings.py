"""Crop geometry: GN section 7 to the letter, for any shape of image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bn_inception.data.pixels.backend import PillowPicture
from bn_inception.data.pixels.crops import cut_single, single_crop
from bn_inception.evaluation.crops import SCALES, CropSetting, crops, cut_plan
from bn_inception.evaluation.multicrop import cut_distinct

SIDES = st.one_of(st.integers(1, 3), st.integers(4, 700), st.integers(10_000, 20_000))
SIZES = st.sampled_from([13, 16, 32, 64, 224])
GN = CropSetting.gn144


def photo(width: int, height: int) -> Image.Image:
    """A smooth picture with some edges, RGB."""
    generator = np.random.default_rng(width * 1000 + height)
    small = generator.integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def assert_close(ours: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    """Pillow rounds its filter's weights and, between the two axes, the pixels."""
    difference = np.abs(ours.astype(int) - other)
    assert difference.max() <= 2 and (difference > 1).mean() < 1e-3


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (300, 300)])
def test_the_144_crops_of_gn(width: int, height: int) -> None:
    found = crops(GN, width, height, 224)
    assert len(found) == 4 * 3 * 6 * 2
    assert [crop.mirrored for crop in found] == [False, True] * 72
    # Every box from the paper's own words, in the pixels of each resized image.
    expected = []
    for shorter in (256, 288, 320, 352):
        unit = min(width, height) / shorter  # source pixels for one pixel of the resized image
        longer = max(width, height) / unit
        for along in ((longer - shorter) / 2, 0.0, longer - shorter):
            x, y = (along, 0.0) if width >= height else (0.0, along)
            far = shorter - 224
            for dx, dy in ((far / 2, far / 2), (0, 0), (far, 0), (0, far), (far, far)):
                expected += [(x + dx, y + dy, x + dx + 224, y + dy + 224, unit)] * 2
            expected += [(x, y, x + shorter, y + shorter, unit)] * 2
    for crop, (x0, y0, x1, y1, unit) in zip(found, expected, strict=True):
        assert np.allclose(crop.box, np.array([x0, y0, x1, y1]) * unit, atol=1e-9)


def test_ten_crops_are_the_corners_and_the_centre_of_the_whole() -> None:
    side = 375 * 224 / 256
    found = [crop.box for crop in crops(CropSetting.ten, 500, 375, 224)[::2]]
    lefts_tops = [
        ((500 - side) / 2, (375 - side) / 2),
        (0, 0),
        (500 - side, 0),
        (0, 375 - side),
        (500 - side, 375 - side),
    ]
    for box, (left, top) in zip(found, lefts_tops, strict=True):
        assert np.allclose(box, (left, top, left + side, top + side))


@pytest.mark.parametrize("setting", list(CropSetting))
@given(width=SIDES, height=SIDES, size=SIZES)
def test_boxes_are_squares_inside_the_image(
    setting: CropSetting, width: int, height: int, size: int
) -> None:
    found = crops(setting, width, height, size)
    assert len(found) == setting.count
    for crop in found:
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert abs((right - left) - (bottom - top)) <= 1e-9 * max(width, height)


@pytest.mark.parametrize("setting", list(CropSetting))
@given(width=SIDES, height=SIDES, size=SIZES)
def test_a_portrait_is_a_landscape_turned(
    setting: CropSetting, width: int, height: int, size: int
) -> None:
    def boxes(width: int, height: int) -> list[tuple[float, ...]]:
        return sorted(crop.box for crop in crops(setting, width, height, size))

    turned = sorted((top, left, bottom, right) for left, top, right, bottom in boxes(height, width))
    assert np.allclose(boxes(width, height), turned)


@given(width=SIDES, height=SIDES, size=SIZES)
def test_the_first_crop_is_the_single_crop(width: int, height: int, size: int) -> None:
    single = single_crop(width, height, size)
    for setting in CropSetting:
        assert np.allclose(crops(setting, width, height, size)[0].box, single, atol=1e-9)


@pytest.mark.parametrize("setting", list(CropSetting))
@given(width=SIDES, height=SIDES, size=SIZES)
def test_the_plan_makes_every_crop_where_it_is(
    setting: CropSetting, width: int, height: int, size: int
) -> None:
    plan = cut_plan(setting, width, height, size)
    made = {}
    for cut in plan.cuts:
        unit = (cut.box[2] - cut.box[0]) / cut.side
        for left, top, slot in cut.places:
            assert 0 <= left <= cut.side - size and 0 <= top <= cut.side - size
            x, y = cut.box[0] + left * unit, cut.box[1] + top * unit
            assert slot not in made
            made[slot] = (x, y, x + size * unit, y + size * unit)
    assert sorted(made) == list(range(plan.distinct))
    for crop, slot, mirrored in zip(
        crops(setting, width, height, size), plan.slots, plan.mirrored, strict=True
    ):
        assert crop.mirrored == mirrored
        assert np.allclose(made[slot], crop.box, atol=1e-9 * max(width, height))


def test_no_crop_is_computed_twice() -> None:
    # 4 scales x 3 squares x 5 crops, and 3 whole squares that all scales share.
    assert cut_plan(GN, 500, 375, 224).distinct == 63
    assert cut_plan(GN, 64, 64, 64).distinct == 4 * 5 + 1
    assert cut_plan(CropSetting.ten, 64, 64, 64).distinct == 5


@pytest.mark.parametrize("setting", list(CropSetting))
@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(120, 90, 64), (90, 121, 32), (64, 64, 64), (1, 1, 16), (700, 1, 16), (3, 500, 32)],
)
def test_cutting_equals_resizing_every_box(
    setting: CropSetting, width: int, height: int, size: int
) -> None:
    image = photo(width, height)
    plan, pixels = (
        cut_plan(setting, width, height, size),
        cut_distinct(PillowPicture(image), setting, size),
    )
    for crop, slot in zip(crops(setting, width, height, size), plan.slots, strict=True):
        alone = image.resize((size, size), Image.Resampling.BILINEAR, box=crop.box)
        assert_close(pixels[slot], np.asarray(alone))


def test_a_single_crop_is_trainings_bit_for_bit() -> None:
    image = photo(130, 97)
    ours = cut_distinct(PillowPicture(image), CropSetting.single, 64)[0]
    assert np.array_equal(ours.transpose(2, 0, 1), cut_single(PillowPicture(image), 64))


@pytest.mark.parametrize(("width", "height"), [(400, 320), (320, 400), (320, 320)])
def test_equal_to_resizing_the_whole_image_and_cutting(width: int, height: int) -> None:
    """Where the longer side comes out in whole pixels: the procedure as GN words it.

    The whole square is GN's square of the resized image, resized again; ours is resized once from
    the source and so a little sharper.
    """
    image = photo(width, height)
    pixels, plan = cut_distinct(PillowPicture(image), GN, 224), cut_plan(GN, width, height, 224)
    ours = iter(pixels[slot] for slot in plan.slots[::2])
    for shorter in SCALES:
        resized = (width * shorter / min(width, height), height * shorter / min(width, height))
        assert all(side.is_integer() for side in resized)
        whole = image.resize((int(resized[0]), int(resized[1])), Image.Resampling.BILINEAR)
        spare_x, spare_y = whole.width - shorter, whole.height - shorter
        for share in (0.5, 0.0, 1.0):
            x, y = int(spare_x * share), int(spare_y * share)
            square = whole.crop((x, y, x + shorter, y + shorter))
            far = shorter - 224
            for dx, dy in ((far // 2, far // 2), (0, 0), (far, 0), (0, far), (far, far)):
                crop = np.asarray(square.crop((dx, dy, dx + 224, dy + 224)))
                assert_close(next(ours), crop)
            again = np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))
            assert np.abs(next(ours).astype(int) - again).mean() <= 2
