"""The two backends that decode and resize; docs/decoding.md bounds the difference of pixels."""

import functools
import math
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum

import cykooz_resizer as resizer
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from bn_inception.data.pixels.decode import decode, is_plain_jpeg, upright_rgb

Box = tuple[float, float, float, float]


class Backend(Enum):
    """Who decodes and resizes.

    With `fast`, simplejpeg decodes plain JPEGs, Pillow decodes everything else, and cykooz_resizer
    (Rust, SIMD) resizes.
    """

    fast = "fast"
    pillow = "pillow"  # does both; the reference


class Picture:
    """A decoded image, of so many pixels, that can be cropped; cykooz_resizer resizes it."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def pixels(self) -> NDArray[np.uint8]:
        """The whole image, uint8 (height, width, 3)."""
        return self._pixels

    def resized(self, box: Box, size: int, resample: Image.Resampling) -> NDArray[np.uint8]:
        """Resize a box to uint8 (size, size, 3); a filter may read pixels beyond the box."""
        # Only the box and the neighbourhood that the filter reads are copied.
        left, top, right, bottom = box
        support, algorithm = _FILTERS[resample]
        x0, x1 = _reach(left, right, size, support, self.width)
        y0, y1 = _reach(top, bottom, size, support, self.height)
        pixels = self._pixels[y0:y1, x0:x1]
        width, height = x1 - x0, y1 - y0
        # Rounding may put sums slightly outside.
        left, top = max(left - x0, 0.0), max(top - y0, 0.0)
        crop = resizer.CropBox(
            left, top, min(right - x0, width) - left, min(bottom - y0, height) - top
        )
        source = resizer.ImageData(width, height, resizer.PixelType.U8x3, pixels.tobytes())
        target = resizer.ImageData(size, size, resizer.PixelType.U8x3)
        options = resizer.ResizeOptions(resize_alg=algorithm, crop_box=crop)
        _resizer().resize(source, target, options)
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(size, size, 3)


class PillowPicture(Picture):
    """An image that Pillow resizes."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.width, self.height = image.size

    def pixels(self) -> NDArray[np.uint8]:
        """See `Picture`."""
        return np.asarray(self._image)

    def resized(self, box: Box, size: int, resample: Image.Resampling) -> NDArray[np.uint8]:
        """See `Picture`."""
        return np.asarray(self._image.resize((size, size), resample, box=box))


def open_picture(data: bytes, name: str, backend: Backend) -> Picture:
    """Decode one encoded image; errors as of `decode`."""
    if backend is Backend.fast and is_plain_jpeg(data):
        with suppress(ValueError):  # damaged or unusual: Pillow reads it, or says why it cannot
            return Picture(simplejpeg.decode_jpeg(data))
    return as_picture(decode(data, name), name, backend)


def as_picture(image: Image.Image, name: str, backend: Backend) -> Picture:
    """An image that Pillow has opened; the backend resizes it. Errors as of `decode.decode`."""
    rgb = upright_rgb(lambda: image, name)
    return PillowPicture(rgb) if backend is Backend.pillow else Picture(np.asarray(rgb))


# Half the width of each filter, in pixels of the source when it enlarges; and how it is done.
_FILTERS: Mapping[Image.Resampling, tuple[float, resizer.ResizeAlg]] = {
    Image.Resampling.BILINEAR: (1.0, resizer.ResizeAlg.convolution(resizer.FilterType.bilinear)),
    Image.Resampling.BOX: (0.5, resizer.ResizeAlg.convolution(resizer.FilterType.box)),
    Image.Resampling.NEAREST: (0.0, resizer.ResizeAlg.nearest()),
    # Catmull-Rom is the cubic filter with a = -1/2, as Pillow's.
    Image.Resampling.BICUBIC: (2.0, resizer.ResizeAlg.convolution(resizer.FilterType.catmull_rom)),
}


def _reach(low: float, high: float, size: int, support: float, length: int) -> tuple[int, int]:
    """The pixels of an axis of `length` that a filter reads to resize [low, high] to `size`."""
    reach = support * max(1.0, (high - low) / size) + 1
    return max(0, math.floor(low - reach)), min(length, math.ceil(high + reach))


@functools.cache
def _resizer() -> resizer.Resizer:
    return resizer.Resizer()  # keeps its working memory; one for each process
