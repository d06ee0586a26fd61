"""The comparison behind data.backend=fast: decoders, resizers and whole paths beside Pillow.

    python experiments/decoder_choice.py FOLDER [IMAGES=100 [REPEATS=3]]

Every candidate sees the same JPEG files of FOLDER in turn, in one process on one core; rates are by
CPU time, differences are grey levels against Pillow's pixels.
"""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from bn_inception.data.order import image_generator
from bn_inception.data.pixels.backend import Backend, Picture, PillowPicture, open_picture
from bn_inception.data.pixels.crops import FILTERS, cut_training, training_crop
from bn_inception.data.pixels.decode import decode, is_plain_jpeg

SIZE = 224
Candidates = dict[str, Callable[..., Any]]


def compare(what: str, candidates: Candidates, given: list[tuple[Any, ...]], repeats: int) -> None:
    """Time candidates in turn on each image, and print a row of each. Pillow is the first."""
    seconds = dict.fromkeys(candidates, 0.0)
    largest = dict.fromkeys(candidates, 0.0)
    means: dict[str, list[float]] = {name: [] for name in candidates}
    for arguments in given:
        pixels = {name: np.asarray(make(*arguments)) for name, make in candidates.items()}
        reference = next(iter(pixels.values())).astype(np.int64)
        for name, made in pixels.items():
            apart = np.abs(made - reference)
            largest[name] = max(largest[name], float(apart.max()))
            means[name].append(float(apart.mean()))
        for _ in range(repeats):
            for name, make in candidates.items():
                start = time.process_time()
                make(*arguments)
                seconds[name] += time.process_time() - start
    print(f"{what:<30}  images/s  x Pillow  largest, mean difference")
    base = seconds[next(iter(candidates))]
    for name, taken in seconds.items():
        rate = len(given) * repeats / taken
        print(f"  {name:<28}  {rate:8.0f}  {base / taken:8.2f}  {largest[name]:4.0f}, "
              f"{np.mean(means[name]):.3f}")  # fmt: skip


def pillow_decode(data: bytes) -> Any:
    return np.asarray(decode(data, "an image"))


def main() -> None:
    folder = Path(sys.argv[1])
    wanted, repeats = (int(word) for word in (*sys.argv[2:4], *("100", "3")[len(sys.argv) - 2 :]))
    files = [path.read_bytes() for path in sorted(folder.rglob("*.[jJ]*[gG]"))]
    # Those that no candidate has to leave to Pillow: upright colour JPEGs.
    plain = [data for data in files if is_plain_jpeg(data)
             and Image.open(io.BytesIO(data)).mode == "RGB"]  # fmt: skip
    plain = plain[:: max(1, len(plain) // wanted)][:wanted]
    print(f"{folder}: {len(plain)} images, {sum(map(len, plain)) // len(plain):,} bytes")
    decoders = {"Pillow": pillow_decode, "simplejpeg": simplejpeg.decode_jpeg}
    compare("decode", decoders, [(data,) for data in plain], repeats)
    for resample in FILTERS:
        boxed = []
        for index, data in enumerate(plain):
            image = decode(data, "an image")
            box = training_crop(image.width, image.height, image_generator(0, 0, index))
            boxed.append((image, np.array(image), box, resample))
        resizers: Candidates = {
            "Pillow": lambda image, _, box, how: np.asarray(image.resize((SIZE, SIZE), how, box)),
            "cykooz-resizer": lambda _, pixels, box, how: Picture(pixels).resized(box, SIZE, how),
        }
        compare(f"resize {resample.name.lower()}", resizers, boxed, repeats)
    paths: Candidates = {
        "data.backend=pillow": lambda data, index: cut_training(
            PillowPicture(decode(data, "an image")), SIZE, image_generator(0, 0, index)
        ),
        "data.backend=fast": lambda data, index: cut_training(
            open_picture(data, "an image", Backend.fast), SIZE, image_generator(0, 0, index)
        ),
    }
    numbered = [(data, index) for index, data in enumerate(plain)]
    compare("decode, crop, mirror, resize", paths, numbered, repeats)


if __name__ == "__main__":
    main()
