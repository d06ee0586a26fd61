"""The embedded data set: pale patterns on bright paper, drawn with NumPy.

Sheets of four classes: columns, diagonals (of either direction), rows, and blank. Each sheet has a
lightness, an ink, a spacing and a start of its own, drawn independently of its class. The images
are made so that the paper's effect shows within minutes (docs/demo.md): nearly all of the input is
a constant, which a network without normalization carries through every layer, and the pattern is
little beside it. They are 64x64 JPEGs in ImageNet's layout, so that they go through the code that
ImageNet goes through.
"""

import hashlib
import io
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
from numpy.random import Generator, Philox, SeedSequence
from PIL import Image

from bn_inception.data.intake import marked
from bn_inception.errors import UserError
from bn_inception.files import first_line, locked

VERSION = 2  # increases with any change of the drawing: the images of a version never change
CLASSES = ("blank", "columns", "diagonals", "rows")
SIDE = 64
TRAIN_PER_CLASS, VAL_PER_CLASS = 1000, 100

# Ranges that each image draws from; lightness is 0 to 1.
PAPER = (0.85, 1.0)
INK = (0.25, 0.30)  # how much darker the pattern is than the paper, in each channel by itself
PERIOD = (10.0, 20.0)  # pixels
NOISE = 0.01  # the width of a uniform distribution

_JPEG_QUALITY = 90
_MANIFEST = "manifest.sha256"

_log = logging.getLogger(__name__)


def prepare(cache: Path) -> Path:
    """Find the data set in `cache`, or draw it there (about six seconds).

    The folder's name contains the version and a checksum over everything that determines the bytes,
    including Pillow's version. Every call checks the content of its files (about 0.2 s); if one is
    missing, changed or extra, the set is drawn again. If several processes start together, one
    draws and the others wait. The folder is renamed into place when it is complete.

    Returns:
        The folder that holds train/<class>/*.jpg and val/<class>/*.jpg.

    Raises:
        UserError: the cache folder cannot be written.
    """
    folder = cache / f"synthetic-v{VERSION}-{_settings_checksum()}"
    partial = folder.with_name(folder.name + ".partial")
    try:
        if _intact(folder):
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / "synthetic.lock"):
            if not _intact(folder):
                _log.info("drawing the synthetic data set into %s (about six seconds)", folder)
                for old in (folder, partial):  # damaged; left by a process that was killed
                    marked.refuse_foreign(old, "data.cache")
                    marked.remove(old)
                marked.make(partial)
                _write(partial)
                os.rename(partial, folder)
    except OSError as error:
        raise UserError(
            f"data.cache: {cache} cannot hold the synthetic data set: {first_line(error)}; "
            "set data.cache=FOLDER to a local folder with 20 MB free"
        ) from error
    return folder


def draw(name: str, split: str, index: int) -> Image.Image:
    """Draw one image (RGB, 64x64), a pure function of its arguments and `VERSION`.

    `name` is one of `CLASSES`, `split` "train" or "val", `index` a number within both, from 0.
    """
    key = SeedSequence([VERSION, CLASSES.index(name), ("train", "val").index(split), index])
    random = Generator(Philox(key))

    def between(low: float, high: float) -> float:
        return low + (high - low) * random.random()

    paper, ink = between(*PAPER), np.array([between(*INK) for _ in range(3)])
    y, x = np.mgrid[:SIDE, :SIDE] / between(*PERIOD)
    across = {
        "columns": x,
        "rows": y,
        "diagonals": (x + y if random.random() < 0.5 else x - y) / math.sqrt(2),
    }
    pattern = np.zeros((SIDE, SIDE))
    if name in across:
        pattern = 0.5 + 0.5 * np.cos(2 * np.pi * (across[name] + random.random()))
    pixels = paper - ink * pattern[..., None] + NOISE * (random.random((SIDE, SIDE, 3)) - 0.5)
    return Image.fromarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))


def _settings_checksum() -> str:
    deciding = (
        *(VERSION, SIDE, TRAIN_PER_CLASS, VAL_PER_CLASS, PAPER, INK, PERIOD, NOISE),
        *(_JPEG_QUALITY, PIL.__version__),
    )
    return hashlib.sha256(repr(deciding).encode()).hexdigest()[:12]


def _write(folder: Path) -> None:
    digest = hashlib.sha256()
    for split, count in (("train", TRAIN_PER_CLASS), ("val", VAL_PER_CLASS)):
        for name in sorted(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                encoded = io.BytesIO()
                draw(name, split, index).save(encoded, "JPEG", quality=_JPEG_QUALITY)
                relative = f"{split}/{name}/{index:04d}.jpg"
                (folder / relative).write_bytes(encoded.getvalue())
                _add(digest, relative, encoded.getvalue())
    (folder / _MANIFEST).write_text(digest.hexdigest() + "\n")


def _intact(folder: Path) -> bool:
    try:
        expected = (folder / _MANIFEST).read_text().strip()
        digest = hashlib.sha256()
        for relative in _listed(folder):
            _add(digest, relative, (folder / relative).read_bytes())
    except OSError:
        return False
    return digest.hexdigest() == expected


def _listed(folder: Path) -> Iterator[str]:
    for split in ("train", "val"):
        for name in sorted(os.listdir(folder / split)):
            for file in sorted(os.listdir(folder / split / name)):
                yield f"{split}/{name}/{file}"


def _add(digest: "hashlib._Hash", relative: str, data: bytes) -> None:
    digest.update(f"{relative}\n{len(data)}\n".encode() + data)
