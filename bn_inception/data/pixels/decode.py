"""From encoded bytes to an RGB image, or an error; never a silently wrong image."""

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bn_inception.errors import UserError

# Listed, so that a file may have any suffix (ImageNet has a PNG called .JPEG) but never reaches
# Pillow's plugins that start other programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")

# A quarter of a gigabyte as RGB, and Pillow's own threshold; ImageNet's largest has 61 million.
MAX_PIXELS = 89_478_485

# The colour behind transparent pixels: that of most pages on the web.
BACKGROUND = (255, 255, 255)

_DIRECT_MODES = ("1", "L", "P", "CMYK", "YCbCr")


class UnreadableImage(Exception):
    """An image that cannot be read correctly: its name, and the reason in one line."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    def refusal(self) -> UserError:
        """The error that ends a run, unless it skips such images."""
        return UserError(
            f"{self.name} cannot be read: {self.reason}; repair or remove it, or set "
            "data.on_error=skip"
        )


def decode(data: bytes, name: str) -> Image.Image:
    """Decode one image to 8-bit RGB.

    CMYK is converted by Pillow, without a colour profile. 16-bit greyscale is scaled, not clipped.
    Transparency is composited on white. An EXIF orientation is applied; senseless EXIF data are
    ignored. Of several frames the first is used.

    UnreadableImage: empty, not an image, truncated, damaged, over `MAX_PIXELS`, or pixels without a
    defined range. Damage that libjpeg repairs unseen, such as a flipped bit, is not detected.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    return upright_rgb(lambda: Image.open(io.BytesIO(data), formats=FORMATS), name)


def upright_rgb(opened: Callable[[], Image.Image], name: str) -> Image.Image:
    """The image that `opened` gives as 8-bit RGB, by the rules of `decode`."""
    try:
        # Pillow warns about odd EXIF data and large images; a million images would flood the log.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = opened()
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise UnreadableImage(name, f"{pixels:,} pixels, more than {MAX_PIXELS:,}")
            image.load()
            image = _upright(image)
        return _rgb(image, name)
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(name, f"not an image in any of {', '.join(FORMATS)}") from None
    except Exception as error:
        # Pillow's plugins may raise anything for damaged files: OSError, SyntaxError,
        # struct.error, ValueError, EOFError, zlib.error, IndexError, ...
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise UnreadableImage(name, reason) from error


def is_plain_jpeg(data: bytes) -> bool:
    """Whether data are an upright JPEG of one picture, colour or grey, within `MAX_PIXELS`.

    Only headers are read. False where they are damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=["JPEG"])
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as in `upright_rgb`, anything
        return False
    return (
        image.format == "JPEG"  # not MPO: several pictures
        and image.mode in ("RGB", "L")
        and image.width * image.height <= MAX_PIXELS
        and orientation not in range(2, 9)
    )


def _upright(image: Image.Image) -> Image.Image:
    # Parsing takes longer than decoding a small image, and most have neither block.
    if not image.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp"}:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow may raise anything for senseless EXIF data
        return image


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        if "transparency" in image.info:
            raise UnreadableImage(name, "16-bit greyscale with a transparent colour")
        # 65535 / 255 is exactly 257; Pillow's own conversion clips everything above 255 to white.
        values = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    if image.mode in _DIRECT_MODES:
        return image.convert("RGB")
    raise UnreadableImage(name, f"pixel format {image.mode} has no defined range of values")
