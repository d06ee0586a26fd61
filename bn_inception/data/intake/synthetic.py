"""The embedded data set: pale patterns on bright paper, drawn with NumPy.

Each image has a lightness, an ink, a spacing and a start of its own, drawn independently of its
class. The paper's effect shows within minutes (docs/demo.md): nearly all of the input is a
constant, which a network without normalization carries through every layer. They are JPEGs in
ImageNet's layout, so that they go through the code that ImageNet goes through.
"""

import hashlib
import logging
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
from numpy.random import Generator, Philox, SeedSequence
from PIL import Image

from bn_inception.errors import UserError
from bn_inception.files import locked, refusing

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
    """The folder with the data set in `cache`; it is drawn there if missing (about six seconds).

    The bytes depend on `VERSION` and on Pillow's. Every call checks the content of the files (about
    0.2 s). If several processes start together, one draws and the others wait.
    """
    folder = cache / f"synthetic-v{VERSION}-pillow-{PIL.__version__}"
    failed = f"data.cache: {cache} cannot hold the synthetic data set"
    with refusing(failed, "set data.cache=FOLDER to a local folder with 20 MB free"):
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with locked(cache / "synthetic.lock"), TemporaryDirectory(dir=cache) as temporary:
                if not folder.exists():
                    _log.info("drawing the synthetic data set into %s (about six seconds)", folder)
                    _write(Path(temporary, folder.name)).rename(folder)
        manifest = folder / _MANIFEST
        intact = manifest.is_file() and manifest.read_text().strip() == _digest(folder)
    if not intact:
        raise UserError(
            f"data.cache: {folder} was changed or damaged; remove it, and it is drawn again"
        )
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


def _write(folder: Path) -> Path:
    for split, count in (("train", TRAIN_PER_CLASS), ("val", VAL_PER_CLASS)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                path = folder / split / name / f"{index:04d}.jpg"
                draw(name, split, index).save(path, "JPEG", quality=_JPEG_QUALITY)
    (folder / _MANIFEST).write_text(_digest(folder) + "\n")
    return folder


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/*/*")):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}\n{len(data)}\n".encode() + data)
    return digest.hexdigest()
