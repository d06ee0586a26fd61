"""Initial weights, on which BN is silent and the plain network depends (docs/fidelity.md).

If its features hardly differ between images at the start, a plain network of this depth stays at
the loss of chance. BN networks are invariant to the scale of their weights (section 3.3).
"""

import math
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bn_inception.network.inception import Inception

RECTIFIED_VARIANCE = 0.5 * (1.0 - 1.0 / math.pi)
"""Variance of a unit Gaussian after a ReLU."""
IMAGE_POWER = 0.25
"""Approximate mean square of images in [-1, 1]; photographs have 0.2 to 0.3."""


class Initialization(Enum):
    """A rule for the initial weights. Biases are 0 unless stated; n is the fan-in."""

    he = "he"
    """Normal, variance 2 / n (He et al. 2015, arXiv 1502.01852), from the paper's own month."""
    xavier = "xavier"
    """Uniform, variance 1 / n, biases 0.2 (0 in the classifiers), as Caffe's public GoogLeNet."""
    truncated_normal = "truncated_normal"
    """Truncated at two standard deviations, as slim's inception_v2: 1.0 in the first convolution,
    0.1 in the second one's 1x1 and the pool projections, 0.09 in the reduces, sqrt(2 / n) else."""
    centred_he = "centred_he"
    """As he, with each filter centred to mean zero and variance 1 / (n (1 - 1/pi) / 2) (Arpit et
    al. 2016, arXiv 1603.01431): after a ReLU a unit Gaussian has a mean, which otherwise grows
    from layer to layer and hides what differs between images."""
    xavier_sigmoid = "xavier_sigmoid"
    """Uniform, with the bound 4 sqrt(6 / (fan-in + fan-out)) before a sigmoid, whose slope at 0 is
    a quarter of tanh's, and sqrt(6 / (fan-in + fan-out)) elsewhere (Glorot and Bengio 2010)."""


def initialize(network: "Inception", generator: torch.Generator) -> None:
    """Set all weights, biases, BN parameters and statistics of `network` in place.

    The values depend only on `network.config` and on `generator` (a CPU generator), not on the
    device or the memory format. `initial_weight_gain` multiplies the weights of every convolution;
    of a separable one only the pointwise half, since the two act as one.
    """
    config = network.config
    caffe = config.initialization is Initialization.xavier
    with torch.no_grad():
        for name, layer in _layers(network):
            weight = torch.empty(layer.weight.shape)
            _draw(weight, name, config.initialization, generator)
            if isinstance(layer, nn.Conv2d) and layer.groups == 1:
                weight *= config.initial_weight_gain
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.fill_(0.2 if caffe and not name.endswith("classifier") else 0.0)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()


def _layers(network: "Inception") -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """Every convolution and linear layer, in the order in which weights are drawn."""
    for row_name, row in network.named_rows():
        layers = [
            (name, layer)
            for name, layer in row.named_modules(prefix=row_name)
            if isinstance(layer, nn.Conv2d | nn.Linear)
        ]
        # After conv1's depthwise half and the linear layers of the auxiliary head.
        last = ("conv1.convolution", "auxiliary.convolution.convolution")
        yield from sorted(layers, key=lambda layer: layer[0] in last)


def _draw(weight: Tensor, name: str, rule: Initialization, generator: torch.Generator) -> None:
    """Fill the weight of the layer `name`, (outputs, inputs, ...)."""
    fan_in, fan_out = weight[0].numel(), weight.shape[0] * weight[0, 0].numel()
    classifier = name.endswith("classifier")  # a softmax follows, and no nonlinearity
    reads_image = name.startswith("conv1.")  # the first convolution, or either half of it
    if rule is Initialization.he:
        weight.normal_(0.0, math.sqrt((1.0 if classifier else 2.0) / fan_in), generator=generator)
    elif rule is Initialization.xavier:
        bound = math.sqrt(3.0 / fan_in)
        weight.uniform_(-bound, bound, generator=generator)
    elif rule is Initialization.xavier_sigmoid:
        slope = 1.0 if classifier or name.endswith("depthwise") else 4.0
        bound = slope * math.sqrt(6.0 / (fan_in + fan_out))
        weight.uniform_(-bound, bound, generator=generator)
    elif rule is Initialization.truncated_normal:
        if reads_image:
            std = 1.0
        elif name.endswith(("projection.convolution", "conv2_reduce.convolution")):
            std = 0.1
        elif "reduce" in name:
            std = 0.09
        else:  # 1.3: slim's correction for the variance lost by truncation
            std = math.sqrt(1.3 * 2.0 / fan_in)
        nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)
    elif reads_image or classifier:
        # An image has both signs: there is no common mean to remove, and centring would suppress
        # its low frequencies. The filter on it also scales its power to 1.
        power = IMAGE_POWER if reads_image and weight.shape[-1] > 1 else 1.0
        weight.normal_(0.0, math.sqrt(1.0 / (power * fan_in)), generator=generator)
    else:
        # Centring removes one part in n of the variance.
        std = math.sqrt(1.0 / (RECTIFIED_VARIANCE * max(1, fan_in - 1)))
        weight.normal_(0.0, std, generator=generator)
        filters = weight.view(weight.shape[0], -1)
        filters -= filters.mean(1, keepdim=True)
