"""ImageNet's three archives at a tenth of the counts, of tiny images: to try `prepare` and `audit`.

    python experiments/archive_of_shape.py TARGET [DIVISOR=10]

With 10: 128,117 training images, 130 in 895 of the classes and 73 to 113 in the others, in a tar
file of 1000 tar files in no order; 5,000 validation images, 5 a class; and the development kit.
Every image is a JPEG of 16 x 12 pixels of noise. Class names are invented wnids; their numbers in
the kit follow another order, as in the original. One class is in memory at a time; 0.2 GB on disk.
"""

import gzip
import io
import itertools
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from bn_inception.data.intake import archives
from bn_inception.paper import results

CLASSES = results.IMAGENET_CLASSES
# ILSVRC 2012: 732 to 1300 training images in a class, and 1300 in 895 of the classes.
SMALLEST, LARGEST, FULL_CLASSES = 732, 1300, 895


def class_sizes(divisor: int) -> np.ndarray:
    """Training images of every class in label order."""
    others = CLASSES - FULL_CLASSES - 1
    rest = results.IMAGENET_TRAIN_IMAGES - FULL_CLASSES * LARGEST - SMALLEST
    sizes = [SMALLEST, *np.diff(np.arange(others + 1) * rest // others), *[LARGEST] * FULL_CLASSES]
    ends = np.rint(np.cumsum(sizes) / divisor)
    return np.random.default_rng(2012).permutation(np.diff(ends, prepend=0).astype(int))


def jpegs() -> Iterator[bytes]:
    """Images without end; of noise, so that no two are the same."""
    generator = np.random.default_rng(2015)
    while True:
        out = io.BytesIO()
        noise = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(out, "JPEG", quality=50)
        yield out.getvalue()


def tar_of(files: Iterable[tuple[str, bytes]], out: io.BufferedIOBase) -> None:
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def tar_bytes(files: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    tar_of(files, out)
    return out.getvalue()


def devkit(wnids: list[str], validation: int) -> Iterator[tuple[str, bytes]]:
    generator = np.random.default_rng(2014)
    numbers = generator.permutation(CLASSES) + 1
    # Inner nodes of the hierarchy come after the leaves, as in the original.
    rows = [*zip(numbers.tolist(), wnids, strict=True), (CLASSES + 1, "n00001740")]
    meta, kinds = io.BytesIO(), [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    savemat(meta, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)}, do_compression=True)
    truth = generator.permutation(np.resize(numbers, validation))
    folder = f"{archives.DEVKIT}/data"
    yield f"{folder}/meta.mat", meta.getvalue()
    truths = "".join(f"{number}\n" for number in truth).encode()
    yield f"{folder}/ILSVRC2012_validation_ground_truth.txt", truths


def main(target: Path, divisor: int) -> None:
    target.mkdir(parents=True)  # an error where it is there already
    wnids = [f"n{1_440_764 + 13_577 * label:08d}" for label in range(CLASSES)]
    validation = results.IMAGENET_VALIDATION_IMAGES // divisor // CLASSES * CLASSES
    kit = gzip.compress(tar_bytes(devkit(wnids, validation)), mtime=0)
    (target / f"{archives.DEVKIT}.tar.gz").write_bytes(kit)
    images, sizes = jpegs(), class_sizes(divisor)
    names = (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, validation + 1))
    with (target / archives.VAL_TAR).open("wb") as out:
        tar_of(zip(names, images, strict=False), out)

    def of_class(label: int) -> bytes:
        inside = (f"{wnids[label]}_{7 * number}.JPEG" for number in range(int(sizes[label])))
        return tar_bytes((name, next(images)) for name in inside)

    order = np.random.default_rng(2013).permutation(CLASSES).tolist()
    with (target / archives.TRAIN_TAR).open("wb") as out:
        tar_of(((f"{wnids[label]}.tar", of_class(label)) for label in order), out)
    print(f"{target}: {sizes.sum():,} training and {validation:,} validation images")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(next(itertools.islice(sys.argv, 2, None), "10")))
