"""144 crops of photographs at full size: this package's way against the straightforward one.

    python scripts/multicrop_speed.py PHOTOGRAPHS [IMAGES]

PHOTOGRAPHS is a folder of images, or a folder of class folders of them. An untrained full-width
network of 1000 classes evaluates the first IMAGES (default 300) of them in two ways, image by image
in turns, so that both meet the same machine:

straightforward  every crop is cut and resized by Pillow from the decoded image, mirrored by Pillow,
                 and goes through the network by itself, BN as trained; softmax averaged.
ours             `evaluate_crops` with the network folded and channels_last, in this process.

Prints images/s, their ratio, the largest difference of averaged probabilities, and peak memory.
"""

import resource
import sys
import time
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
from bn_inception.network import Inception
from bn_inception.network.folding import fold

SETTING, SIZE, CLASSES, BATCH = CropSetting.gn144, 224, 1000, 64
CPU = torch.device("cpu")


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
    root, wanted = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 300
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)[:wanted]
    network = build_network("bn_x30", CLASSES).eval()
    assert isinstance(network, Inception)
    folded = fold(network).to(memory_format=torch.channels_last)
    seconds, difference, peak = [0.0, 0.0], 0.0, 0
    for number, path in enumerate(files):
        source, found = OneImage(path), []
        # The first of the two alternates: neither always meets the colder caches.
        for way in ((0, 1), (1, 0))[number % 2]:
            start = time.perf_counter()
            found.append((way, ours(folded, source) if way else straightforward(network, source)))
            seconds[way] += time.perf_counter() - start
        one, other = (probabilities for _, probabilities in found)
        difference = max(difference, float(np.abs(one - other).max()))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if sys.stderr.isatty():
            print(f"{number + 1}/{len(files)}", end="\r", file=sys.stderr)
    count = len(files)
    print(f"{count} images, {SETTING.count} crops, {torch.get_num_threads()} threads")
    print(f"straightforward  {count / seconds[0]:.3f} images/s")
    print(
        f"ours             {count / seconds[1]:.3f} images/s, {seconds[0] / seconds[1]:.2f} times"
    )
    print(f"largest difference of averaged probabilities {difference:.2e}")
    print(f"peak memory of this process {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
