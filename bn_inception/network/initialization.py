"""Initial weights.

BN does not say how its networks are initialized. The plain network depends on it: if its features
hardly differ between images at the start, a network of this depth stays at the loss of chance,
ln(classes). BN networks are invariant to the scale of their weights (section 3.3). The default is
He et al. 2015, from the paper's own month: a baseline with a later rule that replaces normalization
would not be the paper's. docs/fidelity.md compares the rules.
"""

import math
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bn_inception.network.inception import Inception


class Initialization(Enum):
    """A rule for the initial weights. Biases are 0 unless stated; n is the fan-in.

    he: normal, variance 2 / n (He et al. 2015, arXiv 1502.01852).
    xavier: uniform, variance 1 / n, biases 0.2 (0 in the classifiers), as Caffe's public GoogLeNet.
    truncated_normal: truncated at two standard deviations, as slim's inception_v2: standard
        deviation 1.0 in the first convolution, 0.1 in the second one's 1x1 and the pool
        projections, 0.09 in the reduces, sqrt(2 / n) elsewhere.
    centred_he: as he, with each filter centred to mean zero and variance
        1 / (n (1 - 1/pi) / 2) (Arpit et al. 2016, arXiv 1603.01431; Brock et al. 2021, arXiv
        2101.08692). After a ReLU a unit Gaussian has mean 1 / sqrt(2 pi) and variance
        (1 - 1/pi) / 2. A centred filter removes the mean, so that its output has variance 1. With
        he, this common mean grows from layer to layer and hides what differs between images. The
        first convolution is not centred, because its inputs have both signs.

    xavier_sigmoid: uniform, with the bound 4 sqrt(6 / (fan-in + fan-out)) before a sigmoid and
        sqrt(6 / (fan-in + fan-out)) elsewhere. Glorot and Bengio 2010 derive the bound for tanh; a
        sigmoid's slope at 0 is a quarter of tanh's. This is the best rule for sigmoids known in
        2015; with `he` a plain sigmoid network loses all differences between images.

    Every rule but `xavier_sigmoid` is the same for ReLU and sigmoid networks.
    """

    he = "he"
    xavier = "xavier"
    truncated_normal = "truncated_normal"
    centred_he = "centred_he"
    xavier_sigmoid = "xavier_sigmoid"


class Role(Enum):
    """The kinds of layers that initialization rules distinguish."""

    image = "image"
    """The first convolution, which reads the image; both halves if it is separable."""
    reduction = "reduction"
    """A 1x1 reduce of an Inception module."""
    projection = "projection"
    """The 1x1 after a module's pool, and the 1x1 of the second convolution."""
    hidden = "hidden"
    """Any other layer before a nonlinearity."""
    classifier = "classifier"
    """A last linear layer, before the softmax."""


def initialize(network: "Inception", generator: torch.Generator) -> None:
    """Set all weights, biases, BN parameters and statistics of `network` in place.

    The rule is `network.config.initialization`. The values depend only on the configuration
    and on `generator` (a CPU generator), not on the device, the memory format, or random numbers
    drawn while the network was built. `network.config.initial_weight_gain` multiplies the weights
    of every convolution; of a separable one only the pointwise half, since the two act as one.
    """
    rule = network.config.initialization
    with torch.no_grad():
        for layer, role in network.layer_roles():
            weight = torch.empty(layer.weight.shape)
            _RULES[rule](weight, role, generator)
            depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
            if isinstance(layer, nn.Conv2d) and not depthwise:
                weight *= network.config.initial_weight_gain
            layer.weight.copy_(weight)
            if layer.bias is not None:
                caffe_bias = rule is Initialization.xavier and role is not Role.classifier
                layer.bias.fill_(0.2 if caffe_bias else 0.0)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _he(weight: Tensor, role: Role, generator: torch.Generator) -> None:
    # No nonlinearity follows a classifier, so it needs no factor of 2.
    gain = 1.0 if role is Role.classifier else 2.0
    weight.normal_(0.0, math.sqrt(gain / _fan_in(weight)), generator=generator)


def _xavier(weight: Tensor, role: Role, generator: torch.Generator) -> None:
    bound = math.sqrt(3.0 / _fan_in(weight))
    weight.uniform_(-bound, bound, generator=generator)


def _truncated_normal(weight: Tensor, role: Role, generator: torch.Generator) -> None:
    fixed = {Role.image: 1.0, Role.projection: 0.1, Role.reduction: 0.09}
    # 1.3: slim's correction for the variance lost by truncation.
    std = fixed.get(role, math.sqrt(1.3 * 2.0 / _fan_in(weight)))
    nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)


RECTIFIED_VARIANCE = 0.5 * (1.0 - 1.0 / math.pi)
"""Variance of a unit Gaussian after a ReLU."""
IMAGE_POWER = 0.25
"""Approximate mean square of images in [-1, 1]; photographs have 0.2 to 0.3."""


def _centred_he(weight: Tensor, role: Role, generator: torch.Generator) -> None:
    fan_in = _fan_in(weight)
    if role is Role.image:
        # The inputs have both signs, so there is no common mean to remove, and centring would
        # suppress an image's low frequencies. On the image the filter also scales its power to 1.
        on_image = weight.shape[-1] > 1
        power = IMAGE_POWER if on_image else 1.0
        weight.normal_(0.0, math.sqrt(1.0 / (power * fan_in)), generator=generator)
        return
    if role is Role.classifier:
        weight.normal_(0.0, math.sqrt(1.0 / fan_in), generator=generator)
        return
    # Centring removes one part in n of the variance.
    std = math.sqrt(1.0 / (RECTIFIED_VARIANCE * max(1, fan_in - 1)))
    weight.normal_(0.0, std, generator=generator)
    filters = weight.view(weight.shape[0], -1)
    filters -= filters.mean(1, keepdim=True)


def _xavier_sigmoid(weight: Tensor, role: Role, generator: torch.Generator) -> None:
    fan_out = weight.shape[0] * weight[0, 0].numel()
    # No sigmoid follows the depthwise half of the first convolution or a classifier.
    depthwise = role is Role.image and weight.shape[1] == 1 and weight.dim() == 4
    gain = 1.0 if role is Role.classifier or depthwise else 4.0
    bound = gain * math.sqrt(6.0 / (_fan_in(weight) + fan_out))
    weight.uniform_(-bound, bound, generator=generator)


_RULES = {
    Initialization.he: _he,
    Initialization.xavier: _xavier,
    Initialization.truncated_normal: _truncated_normal,
    Initialization.centred_he: _centred_he,
    Initialization.xavier_sigmoid: _xavier_sigmoid,
}
