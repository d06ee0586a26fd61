"""What encoding photographs again, smaller, saves and loses: `prepare shorter_side=N quality=Q`.

    python experiments/reencoding_cost.py PHOTOGRAPHS [IMAGES=300 [BOXES=4]]

PHOTOGRAPHS is a folder of images. For several N and Q: bytes, CPU time of decoding (the least of
three, all variants of one photograph in turns), the share of training crops with fewer stored
pixels than the network's input, and how far training crops differ from the original's, in grey
levels. A box drawn on the original is mapped to the smaller image in proportion, so that the
difference is that of the detail and not of the draw. Photographs whose shorter side is not above N
keep their bytes.
"""

import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bn_inception.benchmark.rows import as_table
from bn_inception.data.intake.recompression import Recompression
from bn_inception.data.order import image_generator
from bn_inception.data.pixels.crops import FILTERS, training_crop
from bn_inception.data.pixels.decode import decode
from bn_inception.data.source import SUFFIXES

VARIANTS = [(side, quality) for side in (256, 320, 352, 384, 448, 512) for quality in (85, 90, 95)]
SIZE = 224


@dataclass(frozen=True)
class Row:
    """Of one way to store, beside the originals."""

    stored: str
    kept: float
    bytes_ratio: float
    decode_ratio: float
    enlarged: float
    levels: float


def cut(image: Image.Image, original: Image.Image, box: tuple[int, ...], how: int) -> np.ndarray:
    x, y = image.width / original.width, image.height / original.height
    left, top, right, bottom = box
    # Rounding must not take the far edge out of the image: Pillow refuses such a box.
    mapped = (left * x, top * y, min(right * x, image.width), min(bottom * y, image.height))
    return np.asarray(image.resize((SIZE, SIZE), how, box=mapped)).astype(np.int32)


def seconds_to_decode(stored: dict[str, bytes]) -> dict[str, float]:
    least = dict.fromkeys(stored, float("inf"))
    for _ in range(3):
        for key, content in stored.items():
            start = time.thread_time()
            decode(content, key)
            least[key] = min(least[key], time.thread_time() - start)
    return least


def main() -> None:
    wanted, boxes = (int(word) for word in (*sys.argv[2:4], *("300", "4")[len(sys.argv) - 2 :]))
    files = [path for path in Path(sys.argv[1]).rglob("*") if path.suffix.lower() in SUFFIXES]
    files = sorted(files)[:wanted]
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for number, path in enumerate(files):
        stored = {"original": path.read_bytes()}
        for side, quality in VARIANTS:
            again = Recompression(side, quality).encode(stored["original"], str(path))
            stored[f"N={side} q={quality}"] = again
        seconds = seconds_to_decode(stored)
        images = {key: decode(content, str(path)) for key, content in stored.items()}
        original = images["original"]
        for key, content in stored.items():
            sums[key, "kept"] += content is stored["original"]
            sums[key, "bytes"] += len(content)
            sums[key, "seconds"] += seconds[key]
        for epoch in range(boxes):
            box = training_crop(original.width, original.height, image_generator(1, epoch, number))
            area = (box[2] - box[0]) * (box[3] - box[1]) / (original.width * original.height)
            for how in FILTERS:
                reference = cut(original, original, box, how)
                for key, image in images.items():
                    apart = np.abs(cut(image, original, box, how) - reference).mean()
                    sums[key, "levels"] += float(apart) / len(FILTERS)
            for key, image in images.items():
                sums[key, "enlarged"] += area * image.width * image.height < SIZE**2
    rows = [
        Row(
            key,
            sums[key, "kept"] / len(files),
            sums[key, "bytes"] / sums["original", "bytes"],
            sums["original", "seconds"] / sums[key, "seconds"],
            sums[key, "enlarged"] / (len(files) * boxes),
            sums[key, "levels"] / (len(files) * boxes),
        )
        for key in ("original", *(f"N={side} q={quality}" for side, quality in VARIANTS))
    ]
    print(f"{len(files)} photographs, {boxes} training boxes each, all filters, {SIZE} pixels")
    print(as_table([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
