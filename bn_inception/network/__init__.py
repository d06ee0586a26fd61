"""The networks of BN Figure 5 and section 4.2."""

from bn_inception.network.inception import AUXILIARY_LOSS_WEIGHT as AUXILIARY_LOSS_WEIGHT
from bn_inception.network.inception import Inception as Inception
from bn_inception.network.inception import Logits as Logits
from bn_inception.network.initialization import Initialization as Initialization
from bn_inception.network.initialization import initialize as initialize
from bn_inception.network.normalization import PerActivationBatchNorm as PerActivationBatchNorm
from bn_inception.network.normalization import Processes as Processes
from bn_inception.network.normalization import population_statistics as population_statistics
from bn_inception.network.normalization import running_statistics as running_statistics
from bn_inception.network.normalization import set_statistics as set_statistics
from bn_inception.network.precision import Precision as Precision
from bn_inception.network.precision import computing as computing
from bn_inception.network.precision import set_precision as set_precision
from bn_inception.network.settings import FirstConvolution as FirstConvolution
from bn_inception.network.settings import NetworkConfig as NetworkConfig
from bn_inception.network.settings import Nonlinearity as Nonlinearity
from bn_inception.network.settings import Normalization as Normalization
