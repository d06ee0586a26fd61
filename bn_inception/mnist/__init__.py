"""BN section 4.1 and Figure 1 at their own size: a small sigmoid network on MNIST."""

from bn_inception.mnist.images import Digits, read_digits
from bn_inception.mnist.network import NETWORKS, Normalization, sigmoid_network
from bn_inception.mnist.training import Curve, Evaluation, MnistSettings, train

__all__ = [
    "NETWORKS",
    "Curve",
    "Digits",
    "Evaluation",
    "MnistSettings",
    "Normalization",
    "read_digits",
    "sigmoid_network",
    "train",
]
