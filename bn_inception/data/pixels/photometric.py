"""Photometric distortion: factors are drawn for each image and applied to a batch on the device.

GN refers to Howard 2013; BN gives no magnitudes for its "reduced" distortion. The constants are
those of Google's public Inception code (`image_processing.py`), and reduced is its fast mode.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

BRIGHTNESS = 32 / 255  # added, from -BRIGHTNESS to BRIGHTNESS, to pixels of 0 to 1
SATURATION = (0.5, 1.5)  # multiplies the saturation of HSV
HUE = 0.2  # turns added to the hue of HSV
CONTRAST = (0.5, 1.5)  # multiplies each channel's distance from its mean over the image

# Sum of pixels in units of 2^-20: see `_contrast`.
_FIXED_POINT = 1 << 20

# Values distorted at a time on a CPU; a megabyte as floats.
_CACHED = 1 << 18


class Photometric(Enum):
    """How much colours are distorted."""

    none = "none"
    reduced = "reduced"
    full = "full"


@dataclass
class AugmentationConfig:
    """Augmentation of training images beyond crop and mirror."""

    photometric: Photometric = Photometric.reduced


def draw_factors(photometric: Photometric, generator: Generator) -> NDArray[np.float32]:
    """Draw one image's factors, float32 (K,).

    K = 0 for `none`; 3 for `reduced`: brightness, saturation, order (0 or 1); 5 for `full`:
    brightness, saturation, hue, contrast, order.
    """
    if photometric is Photometric.none:
        return np.empty(0, np.float32)
    ranges = [(-BRIGHTNESS, BRIGHTNESS), SATURATION]
    if photometric is Photometric.full:
        ranges += [(-HUE, HUE), CONTRAST]
    drawn = [low + (high - low) * generator.random() for low, high in ranges]
    return np.array([*drawn, float(generator.random() >= 0.5)], np.float32)


def to_input(images: Tensor, factors: Tensor | None = None) -> Tensor:
    """Turn pixels into the network's input: distort, clip to [0, 1], scale to [-1, 1].

    Orders, as in Google's code. Reduced, 0: brightness, saturation; 1: saturation, brightness.
    Full, 0: brightness, saturation, hue, contrast; 1: brightness, contrast, saturation, hue.

    An image's result does not depend on the rest of its batch, bit for bit. The memory format of
    `images` is kept. `images` are uint8 (N, 3, S, S), `factors` of `draw_factors` (N, K); None or
    K = 0 is no distortion.
    """
    kind = 0 if factors is None else factors.shape[1]
    if kind not in (0, 3, 5):
        raise ValueError(f"factors has {kind} columns; 0, 3 (reduced) or 5 (full) are known")
    if factors is None or not kind:
        return images.float().div_(255).mul_(2).sub_(1)
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return _distorted(images, factors).clamp_(0, 1).mul_(2).sub_(1)
    # A CPU's cache holds an image or two, and its vector units need neighbours of one channel.
    inputs = torch.empty_like(images, dtype=torch.float32)
    size = max(1, _CACHED // images.shape[1:].numel())
    for start in range(0, len(images), size):
        part, out = images[start : start + size], inputs[start : start + size]
        x = _distorted(part.contiguous(), factors[start : start + size])
        torch.sub(x.clamp_(0, 1).mul_(2), 1, out=out)
    return inputs


def _distorted(images: Tensor, factors: Tensor) -> Tensor:
    """Distorted pixels, float32 (N, 3, S, S), not clipped."""
    x = images.float().div_(255)
    columns = [column.view(-1, 1, 1, 1) for column in factors.unbind(1)]
    return _reduced(x, *columns) if len(columns) == 3 else _full(x, *columns)


def _reduced(x: Tensor, brightness: Tensor, saturation: Tensor, order: Tensor) -> Tensor:
    zero = torch.zeros_like(brightness)
    x = x + _chosen(brightness, zero, order)
    x = _saturate(x, saturation)
    return x + _chosen(zero, brightness, order)


def _full(
    x: Tensor, brightness: Tensor, saturation: Tensor, hue: Tensor, contrast: Tensor, order: Tensor
) -> Tensor:
    x = x + brightness
    x = _chosen(x, _contrast(x, contrast), order)
    x = _saturate(x, saturation)
    x = _turn_hue(x, hue)
    return _chosen(_contrast(x, contrast), x, order)


def _chosen(zero: Tensor, one: Tensor, which: Tensor) -> Tensor:
    """`zero` where `which` is 0 and `one` where it is 1, exactly; both finite.

    On a CPU this is twenty times as fast as torch.where, which has no vectorized code.
    """
    return torch.lerp(zero, one, which)


def _saturate(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply HSV's saturation, limited to 1; value and hue do not change.

    With s = (v - least) / v, x becomes v - (v - x) s'/s, which keeps v and the hue, and
    s'/s = min(factor, 1/s). A value of 0 or less has saturation 0, as in TensorFlow.
    """
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    limit = value.clamp(min=0) / (value - least).clamp(min=1e-12)
    return value - (value - x) * torch.minimum(factor, limit)


def _turn_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Add `turns` to HSV's hue; value and chroma do not change."""
    red, green, blue = x.unbind(1)
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    divisor = chroma.clamp(min=1e-12)
    below_red, below_green = torch.sign(value - red), torch.sign(value - green)
    hue = _chosen(2 + (blue - red) / divisor, 4 + (red - green) / divisor, below_green)
    hue = _chosen((green - blue) / divisor, hue, below_red)
    hue = hue + turns.view(-1, 1, 1) * 6
    channels = []
    for sextant in (5, 3, 1):
        k = hue + sextant
        k = k - torch.floor(k / 6) * 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    kept = torch.channels_last if channels_last else torch.contiguous_format
    return torch.stack(channels, 1).contiguous(memory_format=kept)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply each channel's distance from its own mean over the image."""
    # Summed as integers: the order of a float sum, and so its last bits, would depend on the
    # batch, the memory format, the number of threads and the device.
    # Doubles hold integers up to 2^53.
    units = (x * _FIXED_POINT).round_()
    total = units.sum((2, 3), keepdim=True, dtype=torch.float64)
    mean = (total / (_FIXED_POINT * x.shape[2] * x.shape[3])).float()
    return (x - mean) * factor + mean
