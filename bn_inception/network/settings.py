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
    """Multiplies every hidden width, see `scaled`."""
    image_size: int = 224
    """Side of the training images in pixels; small images change the stem, see `geometry`."""
    initialization: Initialization = Initialization.he
    """He et al. 2015, from the paper's own month; docs/fidelity.md compares the rules."""
    initial_weight_gain: float = 1.0
    """Multiplies the initial convolution weights (BN section 4.2.3, the ensemble)."""
    caffe_padding: bool = False
    """For imported weights: pad images with Caffe's mean colour, and averages with zeros."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(
                f"dropout is {self.dropout}: allowed are 0 to below 1; choose a probability"
            )
        if not (math.isfinite(self.width) and 0.0 < self.width <= 16.0):
            raise UserError(
                f"width is {self.width}: allowed are factors above 0, up to 16; 1 is the paper's"
            )
        if not (math.isfinite(self.initial_weight_gain) and self.initial_weight_gain > 0.0):
            raise UserError(
                f"initial_weight_gain is {self.initial_weight_gain}: allowed are finite factors "
                "above 0; 1 leaves the weights alone"
            )
        if self.image_size > MAX_IMAGE_SIZE:
            raise UserError(
                f"image_size is {self.image_size}: allowed are up to {MAX_IMAGE_SIZE} pixels"
            )
        figure5.modules(self.pool_projection)
        geometry.stem_strides(self.image_size)
        for name in self.per_activation:
            if name not in figure5.MODULE_NAMES:
                raise UserError(
                    f"per_activation names the module {name!r}: allowed are "
                    f"{', '.join(figure5.MODULE_NAMES)}; name some of them"
                )
        if self.per_activation and self.normalization is Normalization.none:
            raise UserError(
                f"per_activation is {self.per_activation} with normalization none: allowed is [] "
                "there; set normalization to batch or per_activation to []"
            )

    @property
    def has_convolution_bias(self) -> bool:
        """Whether the hidden layers have biases: always without BN."""
        return self.convolution_bias or self.normalization is Normalization.none
