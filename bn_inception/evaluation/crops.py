"""Which parts of an image are evaluated: boxes from the image's size alone, no pixels.

A crop is a box in the coordinates of the source image, resized to S x S by Pillow's bilinear
filter (antialiased) and perhaps mirrored: `image.resize((S, S), BILINEAR, box=crop.box)`. S is the
network's image size; GN's numbers are for 224, and for another S a scale k becomes
round(S * k / 224).

`single`  shorter side to 256, the centre 224: training's evaluation, the same boxes.
`10`      shorter side to 256; of the whole resized image the centre and the four corners, each also
          mirrored (as in Krizhevsky et al. 2012, at another size; BN has no such row).
`144`     GN section 7: shorter side to 256, 288, 320 and 352; of each scale the left, centre and
          right square (top, centre, bottom of a portrait); of each square the centre and the four
          corner crops, and the whole square resized to 224; each also mirrored: 4 x 3 x 6 x 2.

Two places where this is not, to the pixel, "resize the image, cut, and resize what is to be":
the longer side of the resized image is not rounded to whole pixels, so that both axes keep one
scale (a crop lies less than half a resized pixel from where rounding would put it, and at the very
same place where nothing is to be rounded); and the whole square is resized straight from the source
instead of from the resized image, one interpolation instead of two. The latter makes the four
scales' whole squares one and the same crop: it is computed once and counted four times, as are
all three squares of a square image.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from bn_inception.data.pixels.crops import EVALUATION_CROP, EVALUATION_SIDE, Box

SCALES = (256, 288, 320, 352)
"""Shorter sides of the resized image (GN section 7), for crops of 224."""


class CropSetting(Enum):
    """How many crops of an image are averaged."""

    single = "single"
    ten = "10"
    gn144 = "144"

    @property
    def count(self) -> int:
        """Crops of an image, K."""
        return {CropSetting.single: 1, CropSetting.ten: 10, CropSetting.gn144: 144}[self]

    @property
    def mirrored(self) -> bool:
        """Whether every crop is also taken mirrored."""
        return self is not CropSetting.single

    @property
    def order(self) -> str:
        """The order of the crops, for a person: prefixes of it are smaller crop settings."""
        return {
            CropSetting.single: "the centre crop",
            CropSetting.ten: "centre, top left, top right, bottom left, bottom right; each plain, "
            "then mirrored",
            CropSetting.gn144: "scales 256, 288, 320, 352; in each the squares centre, left (top), "
            "right (bottom); of each the crops centre, top left, top right, bottom left, bottom "
            "right, whole square; each plain, then mirrored",
        }[self]


@dataclass(frozen=True)
class Crop:
    """One crop: box (left, top, right, bottom) in source pixels, and whether it is mirrored."""

    box: Box
    mirrored: bool


@dataclass(frozen=True)
class Cut:
    """One resize of the source and what is cut out of it: how crops are made with little work.

    Attributes:
        box: region of the source, (left, top, right, bottom) in its pixels.
        side: pixels it is resized to, on both axes.
        places: (left, top, slot) of every S x S crop in the resized region, whole pixels; `slot`
            is the crop's number among the distinct ones of the image.
    """

    box: Box
    side: int
    places: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class CutPlan:
    """How to make all crops of an image of one size, each distinct one once and none mirrored.

    Attributes:
        cuts: what to resize and to cut.
        distinct: number of distinct unmirrored crops.
        slots: slot of every crop, in order, length K.
        mirrored: whether it is mirrored, length K.
    """

    cuts: tuple[Cut, ...]
    distinct: int
    slots: tuple[int, ...]
    mirrored: tuple[bool, ...]


@dataclass(frozen=True)
class _Place:
    """A crop of S x S at (left, top) in `region` of the source resized to `side` x `side`."""

    region: Box
    side: int
    left: float
    top: float

    def box(self, image_size: int) -> Box:
        if self.side == image_size:
            return self.region
        left, top, right, bottom = self.region
        unit = (right - left) / self.side  # source pixels for one resized pixel
        # Rounding must not take the far edge out of the region: Pillow refuses such a box.
        x1 = min(left + (self.left + image_size) * unit, right)
        y1 = min(top + (self.top + image_size) * unit, bottom)
        return left + self.left * unit, top + self.top * unit, x1, y1


def crops(setting: CropSetting, width: int, height: int, image_size: int) -> list[Crop]:
    """The crops of an image, in the setting's order.

    Args:
        width: of the source image, pixels, at least 1.
        height: likewise.
        image_size: S in pixels, at least 1.

    Returns:
        1, 10 or 144 crops, repetitions included; every box is square and inside the image.
    """
    mirrors = (False, True) if setting.mirrored else (False,)
    return [
        Crop(place.box(image_size), mirrored)
        for place in _places(setting, width, height, image_size)
        for mirrored in mirrors
    ]


# A data set of one image size (Tiny ImageNet) has one plan; ImageNet has some thousand sizes.
@functools.lru_cache(maxsize=1024)
def cut_plan(setting: CropSetting, width: int, height: int, image_size: int) -> CutPlan:
    """Plan the cutting of `crops(...)`, with the same arguments.

    Crops at whole pixels of one resized region are cut out of it: equal to resizing each by itself
    within one grey level, two at single pixels (Pillow rounds its filter's weights and, between the
    axes, the pixels). Others are resized by themselves.
    """
    slots: dict[_Place, int] = {}
    regions: dict[tuple[Box, int], list[tuple[int, int, int]]] = {}
    order: list[int] = []
    for place in _places(setting, width, height, image_size):
        if place not in slots:
            slots[place] = len(slots)
            if place.left.is_integer() and place.top.is_integer():
                key, at = (place.region, place.side), (int(place.left), int(place.top))
            else:
                key, at = (place.box(image_size), image_size), (0, 0)
            regions.setdefault(key, []).append((*at, slots[place]))
        order.append(slots[place])
    mirrors = (False, True) if setting.mirrored else (False,)
    return CutPlan(
        cuts=tuple(Cut(box, side, tuple(places)) for (box, side), places in regions.items()),
        distinct=len(slots),
        slots=tuple(slot for slot in order for _ in mirrors),
        mirrored=tuple(mirrored for _ in order for mirrored in mirrors),
    )


def _places(setting: CropSetting, width: int, height: int, size: int) -> Iterator[_Place]:
    if setting is not CropSetting.gn144:
        side = min(width, height) * size / _scaled(EVALUATION_SIDE, size)
        right, bottom = width - side, height - side
        corners = [(right / 2, bottom / 2)]
        if setting is CropSetting.ten:
            corners += [(0.0, 0.0), (right, 0.0), (0.0, bottom), (right, bottom)]
        for left, top in corners:
            # Rounding may bring the sum a hair over the edge.
            box = (left, top, min(left + side, width), min(top + side, height))
            yield _Place(box, size, 0.0, 0.0)
        return
    for scale in SCALES:
        side = _scaled(scale, size)
        end = float(side - size)
        for square in _squares(width, height):
            yield _Place(square, side, end / 2, end / 2)
            for left, top in ((0.0, 0.0), (end, 0.0), (0.0, end), (end, end)):
                yield _Place(square, side, left, top)
            yield _Place(square, size, 0.0, 0.0)


def _squares(width: int, height: int) -> tuple[Box, Box, Box]:
    """The centre, the left or top and the right or bottom square."""
    side = min(width, height)
    x, y = float(width - side), float(height - side)  # one of them is 0

    def at(share: float) -> Box:
        return x * share, y * share, x * share + side, y * share + side

    return at(0.5), at(0.0), at(1.0)


def _scaled(scale: int, image_size: int) -> int:
    return round(image_size * scale / EVALUATION_CROP)
