"""Pictures for these tests."""

import io

import numpy as np
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A smooth random picture: survives JPEG nearly unchanged."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
