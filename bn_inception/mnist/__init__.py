"""BN section 4.1 and Figure 1 at their own size: a small sigmoid network on MNIST."""

from bn_inception.mnist.images import read_digits
from bn_inception.mnist.training import (
    NETWORKS,
    Curve,
    Evaluation,
    MnistSettings,
    Normalization,
    train,
)

__all__ = [
    "NETWORKS",
    "Curve",
    "Evaluation",
    "MnistSettings",
    "Normalization",
    "read_digits",
    "train",
]
