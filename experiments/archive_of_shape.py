"""ImageNet's archives at a tenth of the counts, of tiny images: to try `prepare` and `audit` on.

    python scripts/archive_of_shape.py TARGET [divisor=10]

Writes into the folder TARGET what ImageNet is downloaded as:

ILSVRC2012_img_train.tar        a tar file of 1000 tar files, one a class, in no order
ILSVRC2012_img_val.tar          images beside each other
ILSVRC2012_devkit_t12.tar.gz    meta.mat and the ground truth of the validation images

The counts are ImageNet's divided by `divisor`: with 10, 128,117 training images, 130 in 895 of the
classes and 73 to 113 in the others (ImageNet has 1,300 in 895 and 732 at least), and 5,000
validation images, 5 a class. Every image is a JPEG of 16 x 12 pixels of noise; the bytes are the
same on every call with the same NumPy and Pillow. Class names are invented wnids; their numbers in
the development kit follow another order, as in the original.

One class is in memory at a time. A tenth takes 0.2 GB on disk. Needs SciPy (extra `devkit`).
"""

import gzip
import io
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from bn_inception.cli.arguments import split_positional
from bn_inception.data import archives
from bn_inception.errors import UserError
from bn_inception.paper import results

SEED = 2012
CLASSES = results.IMAGENET_CLASSES
# ILSVRC 2012: 732 to 1300 training images in a class, and 1300 in 895 of the classes.
SMALLEST, LARGEST, FULL_CLASSES = 732, 1300, 895
IMAGE_BYTES = 4 * tarfile.BLOCKSIZE  # a header and at most three blocks
MAX_DIVISOR = 50  # validation images of every class


def class_sizes(divisor: int) -> NDArray[np.int64]:
    """Training images of every class in label order, shape (1000,)."""
    others = CLASSES - FULL_CLASSES - 1
    rest = results.IMAGENET_TRAIN_IMAGES - FULL_CLASSES * LARGEST - SMALLEST
    sizes = [SMALLEST, *np.diff(np.arange(others + 1) * rest // others), *[LARGEST] * FULL_CLASSES]
    ends = np.cumsum(sizes) / divisor
    return np.random.default_rng(SEED).permutation(np.diff(np.rint(ends), prepend=0).astype(int))


def jpegs(generator: Generator) -> Iterator[bytes]:
    """Images without end; of noise, so that no two are the same."""
    while True:
        out = io.BytesIO()
        noise = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(out, "JPEG", quality=50)
        yield out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files:
            add(tar, name, data)
    return out.getvalue()


def write_training(path: Path, wnids: list[str], divisor: int, images: Iterator[bytes]) -> int:
    """Write the training archive; return how many images it holds."""
    sizes = class_sizes(divisor)
    with tarfile.open(path, "w") as tar:
        for label in np.random.default_rng(SEED + 1).permutation(CLASSES).tolist():
            wnid = wnids[label]
            names = (f"{wnid}_{7 * number}.JPEG" for number in range(int(sizes[label])))
            add(tar, f"{wnid}.tar", tar_of((name, next(images)) for name in names))
    return int(sizes.sum())


def write_validation(path: Path, count: int, images: Iterator[bytes]) -> int:
    """Write the validation archive; return how many images it holds."""
    with tarfile.open(path, "w") as tar:
        for number in range(1, count + 1):
            add(tar, f"ILSVRC2012_val_{number:08d}.JPEG", next(images))
    return count


def write_devkit(path: Path, wnids: list[str], validation: int) -> None:
    """Write the development kit: the same number of validation images of every class."""
    try:
        from scipy.io import savemat
    except ImportError:
        raise UserError("meta.mat needs SciPy: pip install 'bn-inception[devkit]'") from None
    generator = np.random.default_rng(SEED + 2)
    numbers = generator.permutation(CLASSES) + 1
    # Inner nodes of the hierarchy come after the leaves, as in the original.
    rows = [*zip(numbers.tolist(), wnids, strict=True), (CLASSES + 1, "n00001740")]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)}, do_compression=True)
    truth = generator.permutation(np.resize(numbers, validation))
    files = {
        "meta.mat": meta.getvalue(),
        "ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
    }
    packed = tar_of((f"{archives.DEVKIT}/data/{name}", data) for name, data in files.items())
    path.write_bytes(gzip.compress(packed, mtime=0))


def make(arguments: list[str], say: Callable[[str], None]) -> None:
    """Write the three files, and say what they hold."""
    plain, given = split_positional(arguments)
    divisor = 10
    for word in given:
        key, _, value = word.partition("=")
        if key != "divisor" or not value.isdecimal() or not 1 <= int(value) <= MAX_DIVISOR:
            raise UserError(f"{word}: give divisor=1 to {MAX_DIVISOR}")
        divisor = int(value)
    if len(plain) != 1:
        raise UserError(f"{' '.join(plain) or 'TARGET'}: give one folder to write to")
    target = Path(plain[0])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is there already; give an empty or a new folder")
    target.mkdir(parents=True, exist_ok=True)
    validation = results.IMAGENET_VALIDATION_IMAGES // divisor // CLASSES * CLASSES
    needed = IMAGE_BYTES * (int(class_sizes(divisor).sum()) + validation)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(f"{target}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    wnids = [f"n{1_440_764 + 13_577 * label:08d}" for label in range(CLASSES)]
    write_devkit(target / f"{archives.DEVKIT}.tar.gz", wnids, validation)
    images = jpegs(np.random.default_rng(SEED + 3))
    held_out = write_validation(target / archives.VAL_TAR, validation, images)
    train = write_training(target / archives.TRAIN_TAR, wnids, divisor, images)
    for name, count in ((archives.TRAIN_TAR, train), (archives.VAL_TAR, held_out)):
        size = (target / name).stat().st_size
        say(f"{target / name}: {count:,} images of {CLASSES} classes, {size / 1e6:,.1f} MB")


if __name__ == "__main__":
    try:
        make(sys.argv[1:], print)
    except UserError as failure:
        print(failure, file=sys.stderr)
        sys.exit(2)
