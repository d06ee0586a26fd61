"""The part of an image that the network sees. Boxes are pure geometry; cutting is one resize."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from bn_inception.data.pixels.backend import Box, Picture

# GN section 6: "various sized patches of the image whose size is distributed evenly between 8%
# and 100% of the image area and whose aspect ratio is chosen randomly between 3/4 and 4/3".
MIN_AREA, MAX_AREA = 0.08, 1.0
MIN_ASPECT, MAX_ASPECT = 3 / 4, 4 / 3
ATTEMPTS = 10

# GN section 6: "random interpolation methods (bilinear, area, nearest neighbor and cubic, with
# equal probability)".
FILTERS = tuple(Image.Resampling[name] for name in ("BILINEAR", "BOX", "NEAREST", "BICUBIC"))

# Evaluation: shorter side 256 for a crop of 224, and the same ratio for other sizes.
EVALUATION_SIDE, EVALUATION_CROP = 256, 224

Boxes = Callable[[int, int, int], Sequence[Box]]
"""Gives the boxes of crops, from an image's width and height and a crop's S, in pixels."""


def training_crop(width: int, height: int, generator: Generator) -> tuple[int, int, int, int]:
    """Draw the box of a training crop.

    The area is uniform. The aspect (width / height) is log-uniform, so that 3/4 and 4/3 are equally
    likely; GN gives no distribution. A shape that does not fit is drawn again; after `ATTEMPTS` the
    largest centred crop of allowed aspect is used. It is (left, top, right, bottom), in pixels.
    """
    low, high = math.log(MIN_ASPECT), math.log(MAX_ASPECT)
    for _ in range(ATTEMPTS):
        area = width * height * (MIN_AREA + (MAX_AREA - MIN_AREA) * generator.random())
        aspect = math.exp(low + (high - low) * generator.random())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(generator.random() * (width - w + 1))
            top = int(generator.random() * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * MAX_ASPECT)))
    h = min(height, max(1, round(width / MIN_ASPECT)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def single_crop(width: int, height: int, image_size: int) -> Box:
    """The box of evaluation's single crop: shorter side to 256, centre 224 (BN section 4.2).

    For another `image_size` the shorter side becomes round(image_size * 256 / 224). The box is
    (left, top, right, bottom) of the centre square that this resize maps to `image_size`. It is not
    rounded to whole pixels, so both axes have the same scale.
    """
    shorter = round(image_size * EVALUATION_SIDE / EVALUATION_CROP)
    side = min(width, height) * image_size / shorter
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def single_crops(width: int, height: int, image_size: int) -> list[Box]:
    """`single_crop` as the only box of a list."""
    return [single_crop(width, height, image_size)]


def cut_training(picture: Picture, size: int, generator: Generator) -> NDArray[np.uint8]:
    """Draw crop, filter (one of four, equally likely) and mirror (one in two), and cut.

    Bilinear and cubic are antialiased: they widen with the reduction and may read a few pixels
    beyond the box. The result is uint8 (3, S, S), a view of (S, S, 3) memory; perhaps not writable.
    """
    box = training_crop(picture.width, picture.height, generator)
    resample = FILTERS[int(generator.random() * len(FILTERS))]
    pixels = picture.resized(box, size, resample)
    if generator.random() < 0.5:
        # NumPy copies the three bytes of a pixel one by one: 0.19 ms at 224 pixels, torch 0.02 ms.
        pixels = torch.from_numpy(pixels.copy()).flip(1).numpy()
    return pixels.transpose(2, 0, 1)


def cut_single(picture: Picture, size: int) -> NDArray[np.uint8]:
    """Evaluation's single crop, bilinear, antialiased; as of `cut_training`."""
    box = single_crop(picture.width, picture.height, size)
    return picture.resized(box, size, Image.Resampling.BILINEAR).transpose(2, 0, 1)


def cut_crops(picture: Picture, boxes: Boxes, size: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Evaluation's crops: the distinct, uint8 (U, S, S, 3), and each box's place among them."""
    wanted = boxes(picture.width, picture.height, size)
    places = {box: place for place, box in enumerate(dict.fromkeys(wanted))}
    pixels = [picture.resized(box, size, Image.Resampling.BILINEAR) for box in places]
    return np.stack(pixels), [places[box] for box in wanted]
