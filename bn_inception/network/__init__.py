"""The networks of BN Figure 5 and section 4.2."""

from bn_inception.network.cost import saved_bytes
from bn_inception.network.inception import AUXILIARY_LOSS_WEIGHT, Inception, Logits
from bn_inception.network.initialization import Initialization, initialize
from bn_inception.network.normalization import (
    PerActivationBatchNorm,
    Processes,
    population_statistics,
    running_statistics,
    set_statistics,
)
from bn_inception.network.precision import Precision, computing, set_precision
from bn_inception.network.settings import (
    FirstConvolution,
    NetworkConfig,
    Nonlinearity,
    Normalization,
)

__all__ = [
    "AUXILIARY_LOSS_WEIGHT",
    "FirstConvolution",
    "Inception",
    "Initialization",
    "Logits",
    "NetworkConfig",
    "Nonlinearity",
    "Normalization",
    "PerActivationBatchNorm",
    "Precision",
    "Processes",
    "computing",
    "initialize",
    "population_statistics",
    "running_statistics",
    "saved_bytes",
    "set_precision",
    "set_statistics",
]
