"""Images encoded again, smaller."""

import io
from dataclasses import dataclass

from PIL import Image, features

from bn_inception.data.pixels.decode import UnreadableImage, decode

_JPEG_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION


@dataclass(frozen=True)
class Recompression:
    """Images encoded again, smaller."""

    shorter_side: int  # in pixels; images whose shorter side is not longer keep their own bytes
    quality: int  # of the JPEG, 1 to 100

    def describe(self) -> str:
        """Everything that the result depends on, including versions."""
        turbo = features.version("libjpeg_turbo")
        return (
            f"shorter side {self.shorter_side}, JPEG quality {self.quality}, 4:2:0, "
            f"optimized, restart markers, Lanczos, "
            f"Pillow {features.version('pil')}, libjpeg {turbo or features.version('jpg')}"
        )

    def encode(self, data: bytes, name: str) -> bytes:
        """The bytes to store for an image's own bytes.

        Raises:
            UnreadableImage: as for `decode`; or the result would be too large for a JPEG.
        """
        image = decode(data, name)
        width, height = image.size
        side = self.shorter_side
        if min(width, height) <= side:
            return data
        scale = side / min(width, height)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        if max(size) > _JPEG_SIDE:
            raise UnreadableImage(
                name,
                f"{width:,} x {height:,} pixels would become {size[0]:,} x {size[1]:,}, and a JPEG "
                f"holds {_JPEG_SIDE:,} a side",
            )
        out = io.BytesIO()
        try:
            image.resize(size, Image.Resampling.LANCZOS).save(
                out,
                "JPEG",
                quality=self.quality,
                subsampling="4:2:0",
                optimize=True,
                restart_marker_blocks=_restart_interval(size[0]),
            )
        except (OSError, ValueError) as error:
            raise UnreadableImage(name, f"no JPEG could be written: {error}") from error
        return out.getvalue()


def _restart_interval(width: int) -> int:
    """MCUs (16 x 16 pixels) between restart markers, so that each row of them begins with one.

    With these markers `pixels.jpeg` lets a decoder read only the neighbourhood of a crop. They add
    2 % to the bytes (4 % if a row can only be divided into single MCUs).
    """
    across = -(-width // 16)
    return next(mcus for mcus in (2, 3, 1) if across % mcus == 0)
