"""Sides of the feature maps, and the small-image rule.

The paper's network takes 224x224 images: a stem of total stride 8 (conv1, pool1, pool2, each 2),
then Inception modules on grids of 28, 14 and 7. For smaller images the small-image rule reduces
strides of the stem to 1, until the last modules (5a, 5b) have a grid of at least 4x4:

    image   stem strides (conv1, pool1, pool2)   grids of 3a, 4a, 5a
    224     2, 2, 2                              28, 14, 7
    64      1, 2, 2                              16, 8, 4
    32      1, 2, 1                              16, 8, 4
    16      1, 1, 1                              16, 8, 4

conv1 comes first because its stride discards pixels of the image itself. pool1 comes last because
its stride saves the most: it shrinks the input of conv2, the costliest layer of the stem. A stride
of 2 always maps a side n to ceil(n / 2). With 5a at 4x4 the grid of the 4x modules is at least 7x7,
so the auxiliary head's 5x5 pooling always fits.
"""

from typing import NamedTuple

from bn_inception.errors import UserError
from bn_inception.paper import figure5

MINIMUM_LAST_GRID = 4
"""Smallest side of the grid of 5a and 5b that the small-image rule leaves."""
MINIMUM_IMAGE_SIZE = 13
"""Smallest image: at stem stride 1 its grids are 13, 7 and 4."""
AUXILIARY_POOL, AUXILIARY_POOL_STRIDE = 5, 3
"""Average pooling of the auxiliary head (GN section 5)."""


class StemStrides(NamedTuple):
    """Strides of the stem's three striding layers, each 1 or 2."""

    conv1: int
    pool1: int
    pool2: int


# In the order in which the small-image rule reduces strides.
_STEMS = (StemStrides(2, 2, 2), StemStrides(1, 2, 2), StemStrides(1, 2, 1), StemStrides(1, 1, 1))


def stem_strides(image_size: int) -> StemStrides:
    """The stem's strides for square images of `image_size` pixels a side."""
    for stem in _STEMS:
        if _grids(image_size, stem)["5b"] >= MINIMUM_LAST_GRID:
            return stem
    raise UserError(
        f"image_size is {image_size}: allowed are {MINIMUM_IMAGE_SIZE} pixels or more; "
        "choose larger images"
    )


def grids(image_size: int) -> dict[str, int]:
    """Side of the output of each row of `figure5.ROWS`, conv1 to 5b, in forward order."""
    return _grids(image_size, stem_strides(image_size))


def auxiliary_grid(image_size: int) -> int:
    """Side of the auxiliary head's map after its pooling (4 at 224)."""
    return (grids(image_size)["4d"] - AUXILIARY_POOL) // AUXILIARY_POOL_STRIDE + 1


def _grids(side: int, stem: StemStrides) -> dict[str, int]:
    strides = {"conv1": stem.conv1, "pool1": stem.pool1, "conv2": 1, "pool2": stem.pool2}
    strides |= {module.name: module.stride for module in figure5.MODULES}
    sides = {}
    for name, stride in strides.items():
        sides[name] = side = -(-side // stride)
    return sides
