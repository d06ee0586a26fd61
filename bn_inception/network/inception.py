"""The network: a loop over the rows of BN Figure 5.

BN is Ioffe and Szegedy 2015 (arXiv 1502.03167), GN is GoogLeNet (2014, arXiv 1409.4842).
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.errors import UserError
from bn_inception.network.normalization import (
    BatchNorm,
    LocalResponseNormalization,
    PerActivationBatchNorm,
)
from bn_inception.network.precision import in_float32
from bn_inception.network.settings import (
    FirstConvolution,
    NetworkConfig,
    Nonlinearity,
    Normalization,
    geometry,
)
from bn_inception.paper import figure5
from bn_inception.paper.figure5 import InceptionModule, Pool

AUXILIARY_LOSS_WEIGHT = 0.3
"""Weight of the auxiliary head's loss in the total loss (GN section 5)."""
AUXILIARY_ROW = "4d"
"""Row that the auxiliary head reads; this choice gives the paper's 13.6 million parameters."""
_WIDTHS = ("one_by_one", "reduce_3x3", "conv_3x3", "double_reduce", "double_3x3", "projection")


class Logits(NamedTuple):
    """Unnormalized log-probabilities of the two classifiers in training mode, each (N, classes)."""

    main: Tensor
    auxiliary: Tensor


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 4 (halves up), at least 4; 0 stays 0."""
    return max(4, 4 * math.floor(channels * width / 4 + 0.5)) if channels else 0


class HiddenConvolution(nn.Module):
    """Convolution, normalization if any, nonlinearity.

    Padding is symmetric, kernel // 2, as in the public PyTorch ports. Given the output's side
    `grid`, BN is per activation.
    """

    def __init__(
        self,
        config: NetworkConfig,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        grid: int | None = None,
    ) -> None:
        super().__init__()
        bias, padding = config.has_convolution_bias, kernel // 2
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=bias)
        self.normalization = _normalization(config, out_channels, grid)
        self.nonlinearity = _nonlinearity(config)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        output: Tensor = self.nonlinearity(self.normalization(self.convolution(maps)))
        return output


class SeparableConvolution(HiddenConvolution):
    """The first convolution, separable: depthwise 7x7 with 8 filters a colour, then pointwise.

    The two halves have no bias, normalization or nonlinearity between them (BN 4.2).
    """

    def __init__(self, config: NetworkConfig, out_channels: int, stride: int) -> None:
        filters = 3 * figure5.CONV1_DEPTH_MULTIPLIER
        super().__init__(config, filters, out_channels, kernel=1)
        self.depthwise = nn.Conv2d(3, filters, 7, stride, padding=3, groups=3, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        return super().forward(self.depthwise(maps))


class SamePool(nn.Module):
    """3x3 pooling that maps a side n to ceil(n / stride); on even sides as TensorFlow's SAME.

    Averages do not count the padding.
    """

    def __init__(self, pool: Pool, stride: int) -> None:
        super().__init__()
        self.pool, self.stride = pool, stride

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        if self.pool is Pool.average:
            return F.avg_pool2d(maps, 3, self.stride, padding=1, count_include_pad=False)
        if self.stride == 1:
            return F.max_pool2d(maps, 3, 1, padding=1)
        # SAME pads an even side by one row or column at its end (ceil_mode), and an odd side,
        # which occurs only at sizes other than 224, by one at each end.
        odd = (maps.shape[2] % 2, maps.shape[3] % 2)
        return F.max_pool2d(maps, 3, 2, padding=odd, ceil_mode=True)


class InceptionBlock(nn.Module):
    """One Inception module of Figure 5."""

    def __init__(
        self, config: NetworkConfig, module: InceptionModule, in_channels: int, in_grid: int
    ) -> None:
        super().__init__()
        per_activation = module.name in config.per_activation

        def unit(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Module:
            grid = -(-in_grid // stride) if per_activation else None
            return HiddenConvolution(config, channels, out_channels, kernel, stride, grid)

        self.one_by_one = unit(in_channels, module.one_by_one, 1) if module.one_by_one else None
        self.reduce_3x3 = unit(in_channels, module.reduce_3x3, 1)
        self.conv_3x3 = unit(module.reduce_3x3, module.conv_3x3, 3, module.stride)
        self.double_reduce = unit(in_channels, module.double_reduce, 1)
        self.double_3x3_1 = unit(module.double_reduce, module.double_3x3, 3)
        self.double_3x3_2 = unit(module.double_3x3, module.double_3x3, 3, module.stride)
        self.pool = SamePool(module.pool, module.stride)
        self.projection = unit(in_channels, module.projection, 1) if module.projection else None

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        branches = [] if self.one_by_one is None else [self.one_by_one(maps)]
        branches.append(self.conv_3x3(self.reduce_3x3(maps)))
        branches.append(self.double_3x3_2(self.double_3x3_1(self.double_reduce(maps))))
        pooled = self.pool(maps)
        branches.append(pooled if self.projection is None else self.projection(pooled))
        return torch.cat(branches, 1)


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier (GN section 5).

    Average pool 5x5/3, 1x1 convolution, hidden linear layer, linear classifier. It has
    768 hidden features and no dropout, as in soumith's imagenet-multiGPU.torch (GN: 1024, and
    dropout of 70 %), because this reading gives the paper's number of parameters.
    """

    def __init__(
        self, config: NetworkConfig, in_channels: int, in_grid: int, num_classes: int
    ) -> None:
        super().__init__()
        channels, features = scaled(128, config.width), scaled(768, config.width)
        self.grid = (in_grid - 5) // 3 + 1  # 4 at 224
        self.pool = nn.AvgPool2d(5, stride=3)
        self.convolution = HiddenConvolution(config, in_channels, channels, kernel=1)
        self.hidden = nn.Linear(channels * self.grid**2, features, bias=config.has_convolution_bias)
        self.normalization = _normalization(config, features)
        self.nonlinearity = _nonlinearity(config)
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, grid, grid) to logits (N, classes); UserError for another grid."""
        maps = self.pool(maps)
        if maps.shape[2:] != (self.grid, self.grid):
            raise UserError(
                f"training images give the auxiliary head a map of {tuple(maps.shape[2:])}: "
                f"allowed is {self.grid}x{self.grid}; train at the configured image_size"
            )
        features = self.normalization(self.hidden(self.convolution(maps).flatten(1)))
        return in_float32(self.classifier, self.nonlinearity(features))


class Inception(nn.Module):
    """The network of BN Figure 5 for `num_classes` classes, in the reading that `config` names.

    Takes images (N, 3, H, W), floating point, RGB in about [-1, 1]. Returns `Logits` (main and
    auxiliary) in training mode with the auxiliary head, else logits (N, classes). Training images
    have `config.image_size` pixels a side. Evaluation takes any size that is large enough for the
    last modules, unless some BN is per activation. Of one training image BN raises ValueError.

    The weights are torch's defaults until `initialize` sets those that training uses.
    """

    def __init__(self, config: NetworkConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(
                f"num_classes is {num_classes}: allowed are 2 or more; name at least two classes"
            )
        self.config = config
        self.num_classes = num_classes
        self.rows = nn.ModuleDict()
        strides, sides = geometry(config.image_size)
        channels, grid = self._add_stem(*strides), sides["pool2"]
        auxiliary: AuxiliaryHead | None = None
        for printed in figure5.modules(config.pool_projection):
            wide: dict[str, Any] = {w: scaled(getattr(printed, w), config.width) for w in _WIDTHS}
            module = replace(printed, **wide)
            self.rows[module.name] = InceptionBlock(config, module, channels, grid)
            channels, grid = module.channels(channels), sides[module.name]
            if module.name == AUXILIARY_ROW and config.auxiliary_head:
                auxiliary = AuxiliaryHead(config, channels, grid, num_classes)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(channels, num_classes)  # 1024 -> classes
        self.auxiliary = auxiliary

    def _add_stem(self, conv1: int, pool1: int, pool2: int) -> int:
        """The rows before the Inception modules, of these strides; returns their channels."""
        config, rows = self.config, self.rows
        stem, reduce, channels = (scaled(c, config.width) for c in (64, 64, 192))
        # In the comments: channels x side x side of the row's output at 224 and width 1.
        if config.first_convolution is FirstConvolution.separable:
            rows["conv1"] = SeparableConvolution(config, stem, conv1)  # 64 x 112 x 112
        else:
            rows["conv1"] = HiddenConvolution(config, 3, stem, 7, conv1)
        rows["pool1"] = SamePool(Pool.max, pool1)  # 64 x 56 x 56
        if config.local_response_normalization:
            rows["lrn1"] = LocalResponseNormalization(stem)
        rows["conv2_reduce"] = HiddenConvolution(config, stem, reduce, 1)
        rows["conv2"] = HiddenConvolution(config, reduce, channels, 3)  # 192 x 56 x 56
        if config.local_response_normalization:
            rows["lrn2"] = LocalResponseNormalization(channels)
        rows["pool2"] = SamePool(Pool.max, pool2)  # 192 x 28 x 28
        return channels

    def forward(self, images: Tensor) -> Tensor | Logits:
        """Logits of images (N, 3, H, W): see the class."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise UserError(
                f"images have the shape {tuple(images.shape)}: allowed is (N, 3, height, width); "
                "give a batch of RGB images"
            )
        maps = images
        auxiliary: Tensor | None = None
        for name, row in self.rows.items():
            maps = row(maps)
            if name == AUXILIARY_ROW and self.training and self.auxiliary is not None:
                auxiliary = self.auxiliary(maps)
        # Figure 5's 7x7 average pool; at other image sizes it covers the whole last grid.
        features = maps.mean((2, 3))
        logits = in_float32(lambda inputs: self.classifier(self.dropout(inputs)), features)
        return logits if auxiliary is None else Logits(logits, auxiliary)

    def named_rows(self) -> Iterator[tuple[str, nn.Module]]:
        """The rows, the auxiliary head ("auxiliary") and the classifier, by name, in forward order.

        Every parameter of the network is in exactly one of them.
        """
        for name, row in self.rows.items():
            yield name, row
            if name == AUXILIARY_ROW and self.auxiliary is not None:
                yield "auxiliary", self.auxiliary
        yield "classifier", self.classifier


def _normalization(config: NetworkConfig, channels: int, grid: int | None = None) -> nn.Module:
    if config.normalization is Normalization.none:
        return nn.Identity()
    return BatchNorm(channels) if grid is None else PerActivationBatchNorm(channels, grid, grid)


def _nonlinearity(config: NetworkConfig) -> nn.Module:
    # In place: the backward passes of BN and convolution need their inputs, not its output.
    sigmoid = config.nonlinearity is Nonlinearity.sigmoid
    return nn.Sigmoid() if sigmoid else nn.ReLU(inplace=True)
