"""Figure 5 of BN (Ioffe and Szegedy 2015, arXiv 1502.03167): the architecture as data.

The widths printed for 4c and 4d sum to 608 channels, but their printed output is 576, so at least
one printed number is wrong; `modules` returns one of the two readings.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from bn_inception.errors import UserError


class Pool(StrEnum):
    """The pooling of a module."""

    average = "average"
    max = "max"


@dataclass(frozen=True)
class InceptionModule:
    """One Inception module: four branches side by side, joined by channel; widths are outputs.

    In the order of concatenation: 1x1 (absent where 0); 1x1 reduce and 3x3; 1x1 reduce and two 3x3
    of one width; 3x3 pool and 1x1 projection (0 passes the pooled input through). A stride of 2 is
    that of the last 3x3 in both convolutional branches and of the pool, never of a 1x1.
    """

    name: str
    stride: int
    one_by_one: int
    reduce_3x3: int
    conv_3x3: int
    double_reduce: int
    double_3x3: int
    pool: Pool
    projection: int

    def channels(self, in_channels: int) -> int:
        """Output channels: the sum of the branches."""
        pooled = self.projection if self.projection else in_channels
        return self.one_by_one + self.conv_3x3 + self.double_3x3 + pooled


CONV1_DEPTH_MULTIPLIER = 8
"""BN section 4.2: the first convolution is separable, with depth multiplier 8 (3 -> 24)."""

_AVERAGE, _MAX = Pool.average, Pool.max
MODULES: tuple[InceptionModule, ...] = (
    InceptionModule("3a", 1, 64, 64, 64, 64, 96, _AVERAGE, 32),
    InceptionModule("3b", 1, 64, 64, 96, 64, 96, _AVERAGE, 64),
    InceptionModule("3c", 2, 0, 128, 160, 64, 96, _MAX, 0),
    InceptionModule("4a", 1, 224, 64, 96, 96, 128, _AVERAGE, 128),
    InceptionModule("4b", 1, 192, 96, 128, 96, 128, _AVERAGE, 128),
    InceptionModule("4c", 1, 160, 128, 160, 128, 160, _AVERAGE, 128),
    InceptionModule("4d", 1, 96, 128, 192, 160, 192, _AVERAGE, 128),
    InceptionModule("4e", 2, 0, 128, 192, 192, 256, _MAX, 0),
    InceptionModule("5a", 1, 352, 192, 320, 160, 224, _AVERAGE, 128),
    InceptionModule("5b", 1, 352, 192, 320, 192, 224, _MAX, 128),
)
"""The ten Inception modules with the widths as printed."""
MODULE_NAMES = tuple(module.name for module in MODULES)


def modules(pool_projection: int = 96) -> tuple[InceptionModule, ...]:
    """The ten modules under one reading of the pool projection of 4c and 4d.

    96 keeps the printed outputs (576, 576, 1024 after 4c, 4d, 4e); 128 keeps the printed
    projections (608, 608, 1056).
    """
    if pool_projection not in (96, 128):
        raise UserError(
            f"pool_projection is {pool_projection}: allowed are 96 (the outputs as printed) and "
            "128 (the projections as printed); choose one of them"
        )
    return tuple(
        replace(module, projection=pool_projection) if module.name in ("4c", "4d") else module
        for module in MODULES
    )
