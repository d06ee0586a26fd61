"""Which part of an image the network sees: boxes are pure geometry, cutting is one resize."""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

# GN section 6: "various sized patches of the image whose size is distributed evenly between 8%
# and 100% of the image area and whose aspect ratio is chosen randomly between 3/4 and 4/3".
MIN_AREA, MAX_AREA = 0.08, 1.0
MIN_ASPECT, MAX_ASPECT = 3 / 4, 4 / 3
ATTEMPTS = 10

# GN section 6: "random interpolation methods (bilinear, area, nearest neighbor and cubic, with
# equal probability)".
FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
    Image.Resampling.NEAREST,
    Image.Resampling.BICUBIC,
)

# Evaluation: shorter side 256 for a crop of 224, and in this ratio for other sizes.
EVALUATION_SIDE, EVALUATION_CROP = 256, 224

Box = tuple[float, float, float, float]


def training_crop(width: int, height: int, generator: Generator) -> tuple[int, int, int, int]:
    """Draw the box of a training crop.

    The area is uniform in 8 to 100 % of the image. The aspect (width / height) lies in
    [3/4, 4/3]; GN gives no distribution, and it is log-uniform here, so that 3/4 and 4/3 are
    equally likely. Sides are rounded to whole pixels. A shape that does not fit is drawn again, up
    to 10 times; then the largest centred crop of allowed aspect is taken.

    Returns:
        (left, top, right, bottom) in whole pixels, inside the image, never empty.
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

    For another `image_size` the shorter side goes to round(image_size * 256 / 224). The box is the
    centre square that this resize would bring to `image_size`: not rounded to whole pixels, so
    that both axes keep one scale.

    Returns:
        (left, top, right, bottom) in pixels, a square inside the image.
    """
    shorter = round(image_size * EVALUATION_SIDE / EVALUATION_CROP)
    side = min(width, height) * image_size / shorter
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def cut_training(image: Image.Image, size: int, generator: Generator) -> NDArray[np.uint8]:
    """Draw crop, filter (one of four, equally likely) and mirror (one in two), and cut.

    Only the crop is resized. Bilinear and cubic are Pillow's, which widen with the reduction
    (antialiased) and may read a few pixels beyond the box.

    Args:
        image: RGB.
        size: S in pixels.
        generator: the image's own.

    Returns:
        uint8 (3, S, S), a view of (S, S, 3) memory.
    """
    box = training_crop(image.width, image.height, generator)
    resample = FILTERS[int(generator.random() * len(FILTERS))]
    pixels = _cut(image, size, resample, box)
    return pixels[:, :, ::-1] if generator.random() < 0.5 else pixels


def cut_single(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Evaluation's single crop, with Pillow's bilinear filter, antialiased.

    Equal to resizing the whole image and cutting its centre, without computing the rest.

    Returns:
        uint8 (3, S, S), a view of (S, S, 3) memory.
    """
    box = single_crop(image.width, image.height, size)
    return _cut(image, size, Image.Resampling.BILINEAR, box)


def _cut(image: Image.Image, size: int, resample: Image.Resampling, box: Box) -> NDArray[np.uint8]:
    return np.asarray(image.resize((size, size), resample, box=box)).transpose(2, 0, 1)
