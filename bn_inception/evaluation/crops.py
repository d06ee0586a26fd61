"""Which parts of an image are evaluated: boxes from the image's size alone, no pixels.

A crop is a box in the coordinates of the source image, resized to S x S by an antialiased bilinear
filter (Pillow: `image.resize((S, S), BILINEAR, box=box)`). S is the network's image size; GN's
numbers are for 224, and for another S a scale k becomes round(S * k / 224).

In two places this differs, below a pixel, from "resize the image, cut, and resize what is to be".
The longer side of the resized image is not rounded to whole pixels, so that both axes keep one
scale. And the whole square is resized straight from the source, one interpolation instead of two:
the four scales' whole squares are one and the same crop, computed once and counted four times.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bn_inception.data.pixels.backend import Box
from bn_inception.data.pixels.crops import EVALUATION_CROP, EVALUATION_SIDE, Boxes, single_crops
from bn_inception.errors import UserError
from bn_inception.paper.results import MULTICROP_SCALES


@dataclass(frozen=True)
class CropRule:
    """How many crops of an image are averaged.

    Attributes:
        boxes: of an image of (width, height) pixels and S: boxes (left, top, right, bottom) in
            source pixels, each square and inside the image, repetitions included.
        crops: of an image, K: the boxes, and their mirrors where every crop is also taken mirrored,
            right after the plain one.
    """

    name: str
    boxes: Boxes
    crops: int
    mirrored: bool = True


def ten(width: int, height: int, size: int) -> list[Box]:
    """Shorter side to 256; the centre and the four corners, as in Krizhevsky et al. 2012."""
    side = _crop_side(width, height, size, EVALUATION_SIDE)
    return list(_centre_and_corners((0.0, 0.0, width, height), side))


def gn144(width: int, height: int, size: int) -> list[Box]:
    """GN section 7: four scales x three squares x six crops.

    Shorter side to 256, 288, 320 and 352; of each scale the centre, left and right square (centre,
    top, bottom of a portrait); of each square the centre and the four corner crops, and the whole
    square resized to 224.
    """
    short = min(width, height)
    boxes: list[Box] = []
    for scale in MULTICROP_SCALES:
        for share in (0.5, 0.0, 1.0):
            left, top = (width - short) * share, (height - short) * share  # one of them is 0
            square = (left, top, left + short, top + short)
            boxes += _centre_and_corners(square, _crop_side(width, height, size, scale))
            boxes.append(square)
    return boxes


SINGLE = CropRule("single", single_crops, 1, mirrored=False)
RULES = (SINGLE, CropRule("10", ten, 10), CropRule("144", gn144, 144))
"""Every crop rule: a new one is one more entry."""


def crop_rule(name: str) -> CropRule:
    """The rule of this name; UserError where there is none."""
    for rule in RULES:
        if rule.name == name:
            return rule
    raise UserError(f"crops: {name!r}; choose from {', '.join(rule.name for rule in RULES)}")


def _centre_and_corners(region: Box, side: float) -> Iterator[Box]:
    """Five squares of `side` source pixels in a region."""
    x0, y0, x1, y1 = region
    x, y = max(x0, x1 - side), max(y0, y1 - side)
    for left, top in (((x0 + x) / 2, (y0 + y) / 2), (x0, y0), (x, y0), (x0, y), (x, y)):
        # Rounding must not take the far edge out of the region: Pillow refuses such a box.
        yield left, top, min(left + side, x1), min(top + side, y1)


def _crop_side(width: int, height: int, size: int, scale: int) -> float:
    """Source pixels that a crop of `size` covers where the shorter side is resized to `scale`."""
    return min(width, height) * size / round(size * scale / EVALUATION_CROP)
