"""144 crops of photographs at full size: this package's way against the straightforward one.

    python scripts/multicrop_speed.py PHOTOGRAPHS [IMAGES [EVERY]]

PHOTOGRAPHS is a folder of images, or a folder of class folders of them. An untrained full-width
network of 1000 classes evaluates the first IMAGES (default 300) of them: every EVERY-th (default 1)
in three ways, image by image in turns, so that all meet the same machine, the others in the last
way only, which is much the fastest.

straightforward  every crop is cut and resized by Pillow from the decoded image, mirrored by Pillow,
                 and goes through the network by itself, BN as trained; softmax averaged.
ours fp32        `evaluate_crops` with the network folded and channels_last, in this process.
ours bf16        the same under autocast to bfloat16.

Prints, of the images that all ways had, images/s, their ratio to the first and the largest
difference of averaged probabilities from it; images/s of all images in the last way; and the
process's peak memory.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bn_inception import build_network
from bn_inception.data.decode import decode
from bn_inception.data.photometric import to_input
from bn_inception.data.source import SUFFIXES
from bn_inception.evaluation.crops import CropSetting, crops
from bn_inception.evaluation.multicrop import evaluate_crops
from bn_inception.network import Inception, Precision, computing
from bn_inception.network.folding import fold

SETTING, SIZE, CLASSES, BATCH = CropSetting.gn144, 224, 1000, 32
CPU = torch.device("cpu")
Way = Callable[["OneImage"], NDArray[np.float64]]


class OneImage:
    """A source of a single file."""

    classes = tuple(map(str, range(CLASSES)))
    labels = np.zeros(1, np.int64)

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.path)

    def identity(self, index: int) -> str:
        """The file's name."""
        return self.path.name

    def fingerprint(self) -> str:
        """None is needed."""
        return ""


def straightforward(network: torch.nn.Module, source: OneImage) -> NDArray[np.float64]:
    image = decode(source.read(0), source.name(0))
    total = np.zeros(CLASSES)
    with torch.inference_mode():
        for crop in crops(SETTING, *image.size, SIZE):
            part = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=crop.box)
            if crop.mirrored:
                part = ImageOps.mirror(part)
            pixels = torch.from_numpy(np.array(part).transpose(2, 0, 1)[None].copy())
            total += network(to_input(pixels)).softmax(1)[0].double().numpy()
    return total / SETTING.count


def ours(network: torch.nn.Module, source: OneImage) -> NDArray[np.float64]:
    result = evaluate_crops(
        network, source, setting=SETTING, image_size=SIZE, batch=BATCH, workers=0, device=CPU
    )
    return result.probabilities[0].astype(np.float64)


def main() -> None:
    root = Path(sys.argv[1])
    wanted, every = (int(word) for word in (*sys.argv[2:4], *("300", "1")[len(sys.argv) - 2 :]))
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)[:wanted]
    network = build_network("bn_x30", CLASSES).eval()
    assert isinstance(network, Inception)
    folded = fold(network).to(memory_format=torch.channels_last)

    def ours_in(precision: Precision) -> Way:
        def evaluated(source: OneImage) -> NDArray[np.float64]:
            with computing(precision, CPU):
                return ours(folded, source)

        return evaluated

    ways: dict[str, Way] = {
        "straightforward": lambda source: straightforward(network, source),
        "ours fp32": ours_in(Precision.fp32),
        "ours bf16": ours_in(Precision.bf16),
    }
    names = list(ways)
    seconds, difference = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    shared = range(0, len(files), every)
    alone = 0.0
    for number, path in enumerate(files):
        source, found = OneImage(path), {}
        # The order turns: none always meets the colder caches.
        first = number // every % len(names)
        for name in names[first:] + names[:first] if number in shared else names[-1:]:
            start = time.perf_counter()
            found[name] = ways[name](source)
            taken = time.perf_counter() - start
            if number in shared:
                seconds[name] += taken
            if name == names[-1]:
                alone += taken
        for name in names if number in shared else ():
            largest = float(np.abs(found[name] - found[names[0]]).max())
            difference[name] = max(difference[name], largest)
        if sys.stderr.isatty():
            print(f"{number + 1}/{len(files)}", end="\r", file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{len(shared)} images, {SETTING.count} crops, {torch.get_num_threads()} threads")
    for name in names:
        ratio = seconds[names[0]] / seconds[name]
        print(
            f"{name:15}  {len(shared) / seconds[name]:.3f} images/s, {ratio:5.2f} times, "
            f"largest difference of averaged probabilities {difference[name]:.2e}"
        )
    print(f"{names[-1]} on all {len(files)} images: {len(files) / alone:.3f} images/s")
    print(f"peak memory of this process {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
