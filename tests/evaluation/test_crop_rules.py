"""Crop geometry: GN section 7 to the letter, for any shape of image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bn_inception.data.pixels.backend import PillowPicture
from bn_inception.data.pixels.crops import cut_crops, cut_single, single_crop
from bn_inception.evaluation.crops import RULES, SINGLE, CropRule, crop_rule, gn144, ten

SIDES = st.one_of(st.integers(1, 3), st.integers(4, 700), st.integers(10_000, 20_000))
SIZES = st.sampled_from([13, 16, 32, 64, 224])
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def test_the_table_of_rules() -> None:
    assert {rule.name: rule.crops for rule in RULES} == {"single": 1, "10": 10, "144": 144}
    assert crop_rule("144").boxes is gn144


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (300, 300)])
def test_the_crops_of_gn_and_the_ten_by_the_papers_words(width: int, height: int) -> None:
    def five(scale: int, x: float, y: float, far_x: float, far_y: float) -> list[list[float]]:
        """Centre and corners of 224 pixels where the shorter side has `scale`, in source pixels."""
        unit = min(width, height) / scale
        places = [(far_x / 2, far_y / 2), (0, 0), (far_x, 0), (0, far_y), (far_x, far_y)]
        return [[unit * (x + dx), unit * (y + dy), unit * (x + dx + 224), unit * (y + dy + 224)]
                for dx, dy in places]  # fmt: skip

    expected = []
    for scale in (256, 288, 320, 352):
        unit = min(width, height) / scale
        spare, far = max(width, height) / unit - scale, scale - 224
        for along in (spare / 2, 0.0, spare):
            x, y = (along, 0.0) if width >= height else (0.0, along)
            expected += five(scale, x, y, far, far)
            expected.append([unit * x, unit * y, unit * (x + scale), unit * (y + scale)])
    assert np.allclose(gn144(width, height, 224), expected, atol=1e-9)
    unit = min(width, height) / 256
    whole = five(256, 0, 0, width / unit - 224, height / unit - 224)
    assert np.allclose(ten(width, height, 224), whole, atol=1e-9)


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
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image, boxes = Image.fromarray(noise), crop_rule(rule).boxes
    pixels, places = cut_crops(PillowPicture(image), boxes, 32)
    assert len(pixels) == distinct
    for box, place in zip(boxes(width, height, 32), places, strict=True):
        alone = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, box=box))
        assert np.array_equal(pixels[place], alone)
    if rule == SINGLE.name:
        assert np.array_equal(pixels[0].transpose(2, 0, 1), cut_single(PillowPicture(image), 32))
