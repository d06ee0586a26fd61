"""The digits as section 4.1 has them: binary images of 28x28."""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import MNIST

from bn_inception.errors import UserError
from bn_inception.files import first_line

COUNTS = {"train": 60_000, "t10k": 10_000}
VALIDATION = 10_000
"""The last of the 60,000 training images. They choose the rates; the test images choose nothing."""
THRESHOLD = 128
"""Grey levels from here on are 1. Section 4.1 says "binary image" and gives no threshold."""


class Digits(NamedTuple):
    """Images (N, 784) of zeros and ones, float32, and their labels (N,) int64."""

    images: Tensor
    labels: Tensor


def read_digits(root: Path) -> tuple[Digits, Digits, Digits]:
    """The 50,000 training, 10,000 validation and 10,000 test images of MNIST.

    `root` holds MNIST's four .gz files, or is where torchvision keeps them (`MNIST/raw`) and
    downloads them to.
    """
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{part}-{kind}-ubyte.gz" for kind in kinds for part in COUNTS]
    try:
        folder = root
        if not all((root / name).is_file() for name in names):
            MNIST(root, download=True)
            folder = root / "MNIST" / "raw"
        contents = [gzip.decompress((folder / name).read_bytes()) for name in names]
        training, test = map(_digits, contents[:2], contents[2:], COUNTS.values())
    except (OSError, RuntimeError, ValueError, EOFError, zlib.error) as error:
        raise UserError(
            f"root: MNIST cannot be read from {root} or downloaded there ({first_line(error)}); "
            f"give root=FOLDER that holds {', '.join(names)}"
        ) from error
    held_out = slice(-VALIDATION, None), slice(None, -VALIDATION)
    validation, training = (Digits(*(part[place] for part in training)) for place in held_out)
    return training, validation, test


def _digits(images: bytes, labels: bytes, count: int) -> Digits:
    """From the contents of two IDX files, whose headers have 16 and 8 bytes."""
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(count, 28 * 28)
    numbers = np.frombuffer(labels, np.uint8, offset=8).reshape(count)
    binary = torch.from_numpy(pixels >= THRESHOLD).to(torch.float32)
    return Digits(binary, torch.from_numpy(numbers.astype(np.int64)))
