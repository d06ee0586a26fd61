"""The digits, read by torchvision, as section 4.1 has them: binary images of 28x28."""

import gzip
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from bn_inception.errors import UserError
from bn_inception.files import first_line

FILES = tuple(
    f"{part}-{kind}"
    for part in ("train", "t10k")
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
VALIDATION = 10_000
"""The last of the 60,000 training images. They choose the rates; the test images choose nothing."""
THRESHOLD = 128
"""Grey levels from here on are 1. Section 4.1 says "binary image" and gives no threshold."""


@dataclass(frozen=True)
class Digits:
    """Images (N, 784) of zeros and ones, float32, and their labels (N,)."""

    images: Tensor
    labels: Tensor


def read_digits(root: Path) -> tuple[Digits, Digits, Digits]:
    """The 50,000 training, 10,000 validation and 10,000 test images of MNIST.

    Args:
        root: holds MNIST's four files, or is where torchvision keeps them (`MNIST/raw`);
            downloaded there where they are missing.

    Raises:
        UserError: the files are not there and cannot be downloaded, or are damaged.
    """
    packed = [root / f"{name}.gz" for name in FILES]
    try:
        if not all(path.is_file() for path in packed):
            return _read(root)
        # torchvision reads them unpacked; the user's folder may be read-only.
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "MNIST" / "raw"
            raw.mkdir(parents=True)
            for path in packed:
                with gzip.open(path) as content, (raw / path.stem).open("wb") as file:
                    shutil.copyfileobj(content, file)
            return _read(Path(folder))
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError, zlib.error) as error:
        names = ", ".join(path.name for path in packed)
        raise UserError(
            f"root: MNIST cannot be read from {root} or downloaded there ({first_line(error)}); "
            f"give root=FOLDER that holds {names}"
        ) from error


def _read(root: Path) -> tuple[Digits, Digits, Digits]:
    training, test = (_binary(MNIST(root, train=part, download=True)) for part in (True, False))
    counts = len(training.labels), len(test.labels)
    if counts != (60_000, 10_000):
        raise ValueError(f"it has {counts[0]:,} training and {counts[1]:,} test images")
    cut = counts[0] - VALIDATION
    return (
        Digits(training.images[:cut], training.labels[:cut]),
        Digits(training.images[cut:], training.labels[cut:]),
        test,
    )


def _binary(mnist: MNIST) -> Digits:
    images = (mnist.data.flatten(1) >= THRESHOLD).to(torch.float32)
    return Digits(images, mnist.targets)
