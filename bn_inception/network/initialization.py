"""Initial weights.

BN does not say how its networks start. The plain network is the one that depends on it: BN networks
are invariant to the scale of their weights (section 3.3), while a plain network of this depth whose
features hardly differ between images stays at the loss of chance, ln(classes). The default is the
rule of the paper's own month, He et al. 2015: a baseline with a later rule that replaces
normalization would not be the paper's. docs/fidelity.md compares the rules.
"""

import math
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bn_inception.network.inception import Inception


class Initialization(Enum):
    """A rule for the initial weights. Biases are 0 where nothing else is said; n is the fan-in.

    he: normal, variance 2 / n (He et al. 2015, arXiv 1502.01852).
    xavier: uniform, variance 1 / n, biases 0.2 (0 in the classifiers), as Caffe's public GoogLeNet.
    truncated_normal: truncated at two standard deviations, as slim's inception_v2: standard
        deviation 1.0 in the first convolution, 0.1 in the second one's 1x1 and the pool
        projections, 0.09 in the reduces, sqrt(2 / n) elsewhere.
    centred_he: as he, with each filter centred to mean zero and the variance
        1 / (n (1 - 1/pi) / 2): a unit Gaussian behind a ReLU has the mean 1 / sqrt(2 pi) and the
        variance (1 - 1/pi) / 2, and a centred filter lets only the variance through, so that
        outputs have variance 1 (Arpit et al. 2016, arXiv 1603.01431; Brock et al. 2021, arXiv
        2101.08692). With he, the common mean of all inputs reaches every layer and grows at the
        cost of what tells two images apart. The first convolution is not centred, since its input
        has no common sign: see `_centred_he`.

    xavier_sigmoid: uniform, with the bound 4 sqrt(6 / (fan-in + fan-out)) before a sigmoid and
        sqrt(6 / (fan-in + fan-out)) elsewhere. Glorot and Bengio 2010 derive the bound for tanh; a
        sigmoid's slope at 0 is a quarter of tanh's. The best start for sigmoids that was known in
        2015: with `he`, what differs between images is lost on the way through a plain sigmoid
        network.

    `xavier_sigmoid` apart, every rule is the same for ReLU and sigmoid networks.
    """

    he = "he"
    xavier = "xavier"
    truncated_normal = "truncated_normal"
    centred_he = "centred_he"
    xavier_sigmoid = "xavier_sigmoid"


class Role(Enum):
    """What a layer does, as far as an initialization rule asks."""

    image = "image"
    """Works on the image: the first convolution, both halves if it is separable."""
    reduction = "reduction"
    """A 1x1 reduce of an Inception module."""
    projection = "projection"
    """The 1x1 behind a module's pool, and the 1x1 of the second convolution."""
    hidden = "hidden"
    """Any other layer before a nonlinearity."""
    classifier = "classifier"
    """A last linear layer, before the softmax."""


def initialize(network: "Inception", generator: torch.Generator) -> None:
    """Sets all weights, biases, BN parameters and statistics of `network` in place.

    The rule is `network.config.initialization`. The values depend on the configuration and on
    `generator` (a CPU generator) alone: not on the device, the memory format, or the random numbers
    drawn while the network was built. `network.config.initial_weight_gain` multiplies the weights
    of every convolution (of a separable one, the pointwise half alone, since the two act as one).
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
    # 1.3: slim's correction for the variance that truncation takes away.
    std = fixed.get(role, math.sqrt(1.3 * 2.0 / _fan_in(weight)))
    nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)


RECTIFIED_VARIANCE = 0.5 * (1.0 - 1.0 / math.pi)
"""Variance of a unit Gaussian behind a ReLU."""
IMAGE_POWER = 0.25
"""Mean square of images in [-1, 1], about: photographs measure 0.2 to 0.3."""


def _centred_he(weight: Tensor, role: Role, generator: torch.Generator) -> None:
    fan_in = _fan_in(weight)
    if role is Role.image:
        # Inputs of both signs: nothing to centre, and centring would take away what an image has
        # most of, its low frequencies. On the image itself the filter also lifts its power to 1.
        on_image = weight.shape[-1] > 1
        power = IMAGE_POWER if on_image else 1.0
        weight.normal_(0.0, math.sqrt(1.0 / (power * fan_in)), generator=generator)
        return
    if role is Role.classifier:
        weight.normal_(0.0, math.sqrt(1.0 / fan_in), generator=generator)
        return
    # Centring takes one part in n of the variance away.
    std = math.sqrt(1.0 / (RECTIFIED_VARIANCE * max(1, fan_in - 1)))
    weight.normal_(0.0, std, generator=generator)
    filters = weight.view(weight.shape[0], -1)
    filters -= filters.mean(1, keepdim=True)


def _xavier_sigmoid(weight: Tensor, role: Role, generator: torch.Generator) -> None:
    fan_out = weight.shape[0] * weight[0, 0].numel()
    # The depthwise half of the first convolution and a classifier have no sigmoid behind them.
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
