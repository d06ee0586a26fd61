"""The network's settings: those in which recipes differ, and the readings of Figure 5."""

import math
from dataclasses import dataclass, field
from enum import Enum

from bn_inception.errors import UserError
from bn_inception.network import geometry
from bn_inception.network.initialization import Initialization
from bn_inception.paper import figure5

MAX_IMAGE_SIZE = 4096
"""Pixels a side. A checkpoint that asks for more would fill the memory with one image."""


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
    caffe_padding: bool = False
    """For imported weights: pad images with Caffe's mean colour, and averages with zeros."""

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
        geometry.stem_strides(self.image_size)

    @property
    def has_convolution_bias(self) -> bool:
        """Whether the hidden layers have biases: always without BN."""
        return self.convolution_bias or self.normalization is Normalization.none
