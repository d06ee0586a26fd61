"""The network of section 4.1: three fully-connected hidden layers of 100 sigmoid units."""

import itertools
from enum import Enum

import torch
from torch import Tensor, nn

from bn_inception.network.normalization import batch_norm_1d
from bn_inception.paper.results import MNIST_HIDDEN_UNITS

PIXELS, CLASSES = 28 * 28, 10


class Normalization(Enum):
    """Whether the hidden layers have BN: y = g(BN(Wu)) instead of y = g(Wu + b)."""

    plain = "plain"
    bn = "bn"


NETWORKS = tuple(Normalization)


def sigmoid_network(
    normalization: Normalization, deviation: float, generator: torch.Generator
) -> nn.Sequential:
    """Images (N, 784) to logits (N, 10).

    Args:
        normalization: of the hidden layers; the output layer has none.
        deviation: standard deviation of the Gaussian that every weight is drawn from. Section 4.1
            calls it small and gives none. Biases and beta start at 0, gamma at 1.
        generator: both networks draw the same weights from the same state.
    """
    layers: list[nn.Module] = []
    for inputs, units in itertools.pairwise((PIXELS, *MNIST_HIDDEN_UNITS)):
        if normalization is Normalization.bn:
            layers += [nn.Linear(inputs, units, bias=False), batch_norm_1d(units)]
        else:
            layers += [nn.Linear(inputs, units)]
        layers.append(nn.Sigmoid())
    network = nn.Sequential(*layers, nn.Linear(MNIST_HIDDEN_UNITS[-1], CLASSES))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=deviation, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def logits_and_last_inputs(network: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, 10), and the inputs (N, 100) of the last hidden layer's sigmoids."""
    inputs = network[:-2](images)
    logits: Tensor = network[-2:](inputs)
    return logits, inputs
