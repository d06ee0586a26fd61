"""144 crops of photographs at full size: this package's way against the straightforward one.

    python experiments/multicrop_speed.py PHOTOGRAPHS [IMAGES=20]

An untrained full-width network of 1000 classes evaluates the first IMAGES of a folder, image by
image in turns: every crop cut, resized and mirrored by Pillow and through the network by itself;
then `evaluate_source` with the network folded and channels_last, in float32 and in bfloat16.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from bn_inception import build_network
from bn_inception.data.pixels.decode import decode
from bn_inception.data.pixels.photometric import to_input
from bn_inception.data.source import SUFFIXES
from bn_inception.evaluation.crops import crop_rule
from bn_inception.evaluation.evaluate import evaluate_source
from bn_inception.network import Precision, computing
from bn_inception.network.folding import fold

RULE, SIZE, CLASSES, CPU = crop_rule("144"), 224, 1000, torch.device("cpu")


class OneImage:
    """A source of a single file."""

    classes = tuple(map(str, range(CLASSES)))
    labels = np.zeros(1, np.int64)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read = lambda index: path.read_bytes()
        self.name = self.identity = lambda index: str(path)
        self.fingerprint = lambda: ""

    def __len__(self) -> int:
        return 1


def straightforward(network: Any, source: Any) -> np.ndarray:
    image = decode(source.read(0), source.name(0))
    total = np.zeros(CLASSES)
    with torch.inference_mode():
        for box in RULE.boxes(*image.size, SIZE):
            part = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
            for view in (part, ImageOps.mirror(part)):
                pixels = torch.from_numpy(np.array(view).transpose(2, 0, 1)[None].copy())
                total += network(to_input(pixels)).softmax(1)[0].double().numpy()
    return total / RULE.crops


def ours(network: Any, source: Any, precision: Precision) -> np.ndarray:
    with computing(precision, CPU):
        found = evaluate_source(
            network, source, RULE, image_size=SIZE, batch_size=32, workers=0, device=CPU
        )
    return found.probabilities[0].astype(np.float64)


def main() -> None:
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    files = [path for path in Path(sys.argv[1]).rglob("*") if path.suffix.lower() in SUFFIXES]
    network: Any = build_network("bn_x30", CLASSES).eval()
    folded = fold(network).to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[OneImage], np.ndarray]] = {
        "straightforward": lambda source: straightforward(network, source),
        "ours fp32": lambda source: ours(folded, source, Precision.fp32),
        "ours bf16": lambda source: ours(folded, source, Precision.bf16),
    }
    seconds, difference = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for path in sorted(files)[:wanted]:
        found = {}
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way(OneImage(path))
            seconds[name] += time.perf_counter() - start
        for name, probabilities in found.items():
            apart = float(np.abs(probabilities - found["straightforward"]).max())
            difference[name] = max(difference[name], apart)
    for name, taken in seconds.items():
        print(f"{name:15}  {wanted / taken:.3f} images/s, "
              f"{seconds['straightforward'] / taken:5.2f} times, "
              f"largest difference of averaged probabilities {difference[name]:.2e}")  # fmt: skip


if __name__ == "__main__":
    main()
