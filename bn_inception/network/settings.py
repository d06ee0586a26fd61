"""The network's settings: those in which recipes differ, the readings of Figure 5, image sizes.

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

import math
from dataclasses import dataclass, field
from enum import Enum

from bn_inception.errors import UserError
from bn_inception.network.initialization import Initialization
from bn_inception.paper import figure5

MAX_IMAGE_SIZE = 4096
"""Pixels a side. A checkpoint that asks for more would fill the memory with one image."""
MINIMUM_IMAGE_SIZE = 13
"""At stem strides of 1 its grids are 13, 7 and 4."""
MINIMUM_LAST_GRID = 4
"""Smallest side of the grid of 5a and 5b that the small-image rule leaves."""


class Normalization(Enum):
    """Normalization before every nonlinearity (BN section 3.2)."""

    none = "none"
    batch = "batch"


class Nonlinearity(Enum):
    """The nonlinearity of every hidden layer (BN section 4.2.2 trains both)."""

    relu = "relu"
    sigmoid = "sigmoid"


class FirstConvolution(Enum):
    """7x7/2 on the image: depthwise 3 -> 24 and pointwise (BN section 4.2), or a full one."""

    separable = "separable"
    full = "full"


@dataclass
class NetworkConfig:
    """The network's settings. The defaults are BN-x5's and BN-x30's network at the paper's size."""

    normalization: Normalization = Normalization.batch
    per_activation: list[str] = field(default_factory=list)
    """Modules (3a to 5b) whose BN is per activation instead of per channel (BN section 4.2.3)."""
    nonlinearity: Nonlinearity = Nonlinearity.relu
    dropout: float = 0.0
    """Probability of dropping each input of the main classifier."""
    local_response_normalization: bool = False
    """After pool1 and before pool2, as in GN; BN section 4.2.1 removes it to accelerate."""
    pool_projection: int = 96
    """Channels of the pool projection in 4c and 4d: 96 or 128, see `figure5.modules`."""
    first_convolution: FirstConvolution = FirstConvolution.separable
    auxiliary_head: bool = True
    """Whether there is an auxiliary classifier on 4d, in training only."""
    convolution_bias: bool = False
    """Whether convolutions have biases before BN, which cancels them; without BN they always do."""
    width: float = 1.0
    """Multiplies every hidden width, see `inception.scaled`."""
    image_size: int = 224
    """Side of the training images in pixels; small images change the stem, see `geometry`."""
    initialization: Initialization = Initialization.he
    initial_weight_gain: float = 1.0
    """Multiplies the initial convolution weights (BN section 4.2.3, the ensemble)."""

    def __post_init__(self) -> None:
        gain, unknown = self.initial_weight_gain, set(self.per_activation) - {*figure5.MODULE_NAMES}
        plain = self.normalization is Normalization.none
        for name, allowed, limits in (
            ("dropout", 0.0 <= self.dropout < 1.0, "0 to below 1"),
            ("width", 0.0 < self.width <= 16.0, "factors above 0, up to 16"),
            ("initial_weight_gain", math.isfinite(gain) and gain > 0.0, "finite factors above 0"),
            ("image_size", self.image_size <= MAX_IMAGE_SIZE, f"up to {MAX_IMAGE_SIZE} pixels"),
            ("per_activation", not unknown, f"[] or some of {', '.join(figure5.MODULE_NAMES)}"),
            ("per_activation", not (plain and self.per_activation), "[] with normalization none"),
        ):
            if not allowed:
                raise UserError(f"{name} is {getattr(self, name)}: allowed are {limits}")
        figure5.modules(self.pool_projection)
        geometry(self.image_size)

    @property
    def has_convolution_bias(self) -> bool:
        """Whether the hidden layers have biases: always without BN."""
        return self.convolution_bias or self.normalization is Normalization.none


def geometry(image_size: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Strides of conv1, pool1 and pool2, and the side of the output of each row, conv1 to 5b."""
    for conv1, pool1, pool2 in ((2, 2, 2), (1, 2, 2), (1, 2, 1), (1, 1, 1)):
        strides = {"conv1": conv1, "pool1": pool1, "conv2": 1, "pool2": pool2}
        strides |= {module.name: module.stride for module in figure5.MODULES}
        sides, side = {}, image_size
        for name, stride in strides.items():
            sides[name] = side = -(-side // stride)
        if side >= MINIMUM_LAST_GRID:
            return (conv1, pool1, pool2), sides
    raise UserError(
        f"image_size is {image_size}: allowed are {MINIMUM_IMAGE_SIZE} pixels or more; "
        "choose larger images"
    )
