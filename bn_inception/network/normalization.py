"""Batch normalization layers of BN section 3, as this project configures them."""

from torch import Tensor, nn

EPSILON = 1e-3
"""Added to the variance. BN gives no value; 1e-3 is that of TensorFlow's slim inception_v2."""

MOMENTUM = 0.02
"""Weight of the newest batch in the running statistics, which serve monitoring.

1 / 0.02 = 50: they follow the mean over about the last 50 mini-batches of 32. Torch's 0.1 would
average some 10 batches, 320 images, and make the monitored accuracy noisy; slim's 0.0003 would lag
behind the weights for thousands of steps, which shortened runs do not have.
"""


def batch_norm_2d(channels: int) -> nn.BatchNorm2d:
    """Convolutional BN (section 3.2): per channel, over the batch and all positions."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def batch_norm_1d(features: int) -> nn.BatchNorm1d:
    """BN of a fully-connected layer (Algorithm 1): statistics, gamma and beta per feature."""
    return nn.BatchNorm1d(features, eps=EPSILON, momentum=MOMENTUM)


class PerActivationBatchNorm(nn.BatchNorm1d):
    """Non-convolutional BN of feature maps (section 4.2.3, the ensemble).

    Statistics, gamma and beta per activation, that is per (channel, y, x), over the batch alone.
    Takes and returns (N, channels, height, width); parameters and buffers are vectors of
    channels x height x width in that order. Torch raises ValueError for a training batch
    of one image.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__(channels * height * width, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, height, width) to the same shape."""
        return super().forward(maps.flatten(1)).view(maps.shape)
