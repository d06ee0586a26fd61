"""Folding BN into the convolutions before it, for inference.

With fixed statistics BN is an affine map (the last step of BN Algorithm 2), and an affine map of a
convolution's output is a convolution with other weights and biases. It saves every layer a pass.
"""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bn_inception.network.inception import HiddenConvolution, Inception, InceptionBlock
from bn_inception.network.normalization import BatchNorm
from bn_inception.paper.figure5 import Pool

TOLERANCE = 1e-3
"""Of the largest logit. Rounding in float32 leaves about 1e-5 over this network's depth."""


def fold_checked(network: Inception) -> tuple[Inception, float]:
    """Fold a network in evaluation mode, and compare the logits of four images of noise.

    Returns the folded network, or `network` where folding changed its outputs, and the largest
    difference of a logit, relative to the largest logit or to 1.
    """
    size, device = network.config.image_size, network.classifier.weight.device
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    folded = fold(network)
    with torch.inference_mode():
        expected, found = (each(images.to(device)).double() for each in (network, folded))
    difference = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    return folded if difference <= TOLERANCE else network, difference


def fold(network: Inception) -> Inception:
    """Copy a network for inference, with its convolutional BN folded and without auxiliary head.

    Per-activation BN is not folded: its factors differ by position, and a convolution's weights
    do not. Folding computes in float64, so that only the new weights are rounded.

    Where a module averages 3x3 and then projects with a 1x1 convolution, the copy projects first
    and averages fewer channels. The function is the same: both operations are linear, and a mean
    that does not count the padding leaves the bias unchanged. The copy cannot be trained.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    folded.auxiliary = None
    dtype = folded.classifier.weight.dtype
    for module in folded.modules():
        if isinstance(module, HiddenConvolution) and type(module.normalization) is BatchNorm:
            double = module.convolution.double(), module.normalization.double()
            module.convolution = fuse_conv_bn_eval(*double).to(dtype)
            module.normalization = nn.Identity()
    for row in folded.rows.values():
        if not isinstance(row, InceptionBlock) or not isinstance(row.projection, HiddenConvolution):
            continue
        if row.pool.pool is Pool.average:
            projected = nn.Sequential(row.projection.convolution, row.pool)
            row.projection.add_module("convolution", projected)
            row.add_module("pool", nn.Identity())
    return folded
