"""Crop geometry: GN section 7 to the letter, for any shape of image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bn_inception import UserError
from bn_inception.data.pixels.backend import PillowPicture
from bn_inception.data.pixels.crops import cut_crops, cut_single, single_crop
from bn_inception.evaluation.crops import RULES, SINGLE, CropRule, crop_rule, gn144, ten
from bn_inception.paper.results import MULTICROP_SCALES

SIDES = st.one_of(st.integers(1, 3), st.integers(4, 700), st.integers(10_000, 20_000))
SIZES = st.sampled_from([13, 16, 32, 64, 224])
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def photo(width: int, height: int) -> Image.Image:
    """A smooth picture with some edges, RGB."""
    generator = np.random.default_rng(width * 1000 + height)
    small = generator.integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_the_table_of_rules() -> None:
    assert {rule.name: rule.crops for rule in RULES} == {"single": 1, "10": 10, "144": 144}
    assert crop_rule("144").boxes is gn144
    with pytest.raises(UserError, match="crops: '12'; choose from single, 10, 144"):
        crop_rule("12")


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (300, 300)])
def test_the_144_crops_of_gn(width: int, height: int) -> None:
    # Every box from the paper's own words, in the pixels of each resized image.
    expected = []
    for shorter in (256, 288, 320, 352):
        unit = min(width, height) / shorter  # source pixels for one pixel of the resized image
        longer = max(width, height) / unit
        for along in ((longer - shorter) / 2, 0.0, longer - shorter):
            x, y = (along, 0.0) if width >= height else (0.0, along)
            far = shorter - 224
            for dx, dy in ((far / 2, far / 2), (0, 0), (far, 0), (0, far), (far, far)):
                expected.append((x + dx, y + dy, x + dx + 224, y + dy + 224, unit))
            expected.append((x, y, x + shorter, y + shorter, unit))
    for box, (x0, y0, x1, y1, unit) in zip(gn144(width, height, 224), expected, strict=True):
        assert np.allclose(box, np.array([x0, y0, x1, y1]) * unit, atol=1e-9)


def test_ten_crops_are_the_corners_and_the_centre_of_the_whole() -> None:
    side = 375 * 224 / 256
    right, bottom = 500 - side, 375 - side
    places = [(right / 2, bottom / 2), (0, 0), (right, 0), (0, bottom), (right, bottom)]
    for box, (left, top) in zip(ten(500, 375, 224), places, strict=True):
        assert np.allclose(box, (left, top, left + side, top + side))


@every_rule
@given(width=SIDES, height=SIDES, size=SIZES)
def test_boxes_are_squares_inside_the_image_and_a_portrait_is_a_landscape_turned(
    rule: CropRule, width: int, height: int, size: int
) -> None:
    boxes = rule.boxes(width, height, size)
    assert np.allclose(boxes[0], single_crop(width, height, size), atol=1e-9)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert abs((right - left) - (bottom - top)) <= 1e-9 * max(width, height)
    turned = sorted((y0, x0, y1, x1) for x0, y0, x1, y1 in rule.boxes(height, width, size))
    assert np.allclose(sorted(boxes), turned)


@pytest.mark.parametrize(
    ("rule", "width", "height", "distinct"),
    # 4 scales x 3 squares x 5 crops, and 3 whole squares that all scales share.
    [("144", 120, 90, 63), ("144", 64, 64, 4 * 5 + 1), ("10", 64, 64, 5), ("single", 1, 1, 1),
     ("144", 700, 1, 63), ("10", 3, 500, 5)],
)  # fmt: skip
def test_a_crop_is_its_box_resized_and_none_is_cut_twice(
    rule: str, width: int, height: int, distinct: int
) -> None:
    image, boxes = photo(width, height), crop_rule(rule).boxes
    pixels, places = cut_crops(PillowPicture(image), boxes, 32)
    assert len(pixels) == distinct
    for box, place in zip(boxes(width, height, 32), places, strict=True):
        alone = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, box=box))
        assert np.array_equal(pixels[place], alone)
    if rule == SINGLE.name:
        assert np.array_equal(pixels[0].transpose(2, 0, 1), cut_single(PillowPicture(image), 32))


@pytest.mark.parametrize(("width", "height"), [(400, 320), (320, 400), (320, 320)])
def test_equal_to_resizing_the_whole_image_and_cutting(width: int, height: int) -> None:
    """Where the longer side comes out in whole pixels: the procedure as GN words it.

    Pillow rounds its filter's weights and, between the two axes, the pixels. The whole square is
    GN's square of the resized image, resized again; ours is resized once and so a little sharper.
    """
    image = photo(width, height)
    pixels, places = cut_crops(PillowPicture(image), gn144, 224)
    ours = iter(pixels[place].astype(int) for place in places)
    for shorter in MULTICROP_SCALES:
        sides = (width * shorter // min(width, height), height * shorter // min(width, height))
        whole = image.resize(sides, Image.Resampling.BILINEAR)
        spare_x, spare_y = whole.width - shorter, whole.height - shorter
        for share in (0.5, 0.0, 1.0):
            x, y = int(spare_x * share), int(spare_y * share)
            square = whole.crop((x, y, x + shorter, y + shorter))
            far = shorter - 224
            for dx, dy in ((far // 2, far // 2), (0, 0), (far, 0), (0, far), (far, far)):
                apart = np.abs(next(ours) - np.asarray(square.crop((dx, dy, dx + 224, dy + 224))))
                assert apart.max() <= 2 and (apart > 1).mean() < 1e-3
            again = np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))
            assert np.abs(next(ours) - again).mean() <= 2
