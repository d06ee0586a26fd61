"""The comparison behind data.backend=fast: decoders, resizers and whole paths beside Pillow.

    python scripts/decoder_choice.py FOLDER [--images 100] [--repeats 3] [--output FILE.json]

FOLDER holds JPEG files, or the tar shards of `bn-inception prepare`. Every candidate sees the same
images in turn, in one process on one core; rates are by CPU time, differences are grey levels
against Pillow's pixels. Packages that are not installed are skipped and named.
"""

import argparse
import functools
import importlib
import io
import json
import tarfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bn_inception.data import jpeg
from bn_inception.data.backend import ArrayPicture, FastPicture, PillowPicture
from bn_inception.data.crops import FILTERS, cut_training, training_crop
from bn_inception.data.decode import UnreadableImage, decode
from bn_inception.data.order import image_generator

SIZE = 224
Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="the same as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images = list(plain(every(read(arguments.folder), arguments.images)))
    if not images:
        parser.error(f"{arguments.folder}: no plain JPEG in it")
    print(
        f"{arguments.folder}: {len(images)} images, {sum(map(len, images)) // len(images):,} bytes"
    )
    scales = [halved(data, index) for index, data in enumerate(images)]
    print(f"half the size in the decoder would do for {np.mean(scales):.0%} of the crops\n")

    rows = []
    decoders = list(installed(DECODERS))
    rows += compare(
        "decode", dict(decoders), images, lambda data, index: (data,), arguments.repeats
    )
    resizers = dict(installed(RESIZERS))
    for resample in FILTERS:
        chosen = {name: function for name, function in resizers.items() if resample in FITS[name]}
        rows += compare(
            f"resize {resample.name.lower()}",
            chosen,
            images,
            lambda data, index, resample=resample: prepared(data, index, resample),
            arguments.repeats,
        )
    rows += compare(
        "decode, crop, mirror, resize", PATHS, images, lambda d, i: (d, i), arguments.repeats
    )
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n")


def read(folder: Path) -> list[bytes]:
    """All JPEG files below a folder, those inside its tar files included."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            found.append(path.read_bytes())
        elif path.suffix == ".tar":
            with tarfile.open(path) as shard:
                members = [shard.extractfile(m) for m in shard if m.name.endswith(".jpg")]
                found += [member.read() for member in members if member is not None]
    return found


def every(images: list[bytes], count: int) -> list[bytes]:
    """`count` of them, evenly."""
    return images[:: max(1, len(images) // count)][:count]


def plain(images: Iterable[bytes]) -> Iterator[bytes]:
    """Those that no candidate has to leave to Pillow: upright colour JPEGs."""
    for data in images:
        try:
            colour = Image.open(io.BytesIO(data)).mode == "RGB"
            decode(data, "an image")
        except (OSError, UnreadableImage):
            continue
        if colour and jpeg.parse(data) is not None:
            yield data


def compare(
    what: str,
    candidates: dict[str, Callable[..., Pixels]],
    images: list[bytes],
    given: Callable[[bytes, int], tuple[Any, ...]],
    repeats: int,
) -> list[Row]:
    """Time candidates in turn on each image; print and return a row of each. Pillow is first."""
    seconds = dict.fromkeys(candidates, 0.0)
    largest = dict.fromkeys(candidates, 0)
    means: dict[str, list[float]] = {name: [] for name in candidates}
    for index, data in enumerate(images):
        arguments = given(data, index)
        reference: NDArray[np.int64] | None = None
        for name, function in candidates.items():  # untimed: warm, and to be compared
            pixels = np.asarray(function(*arguments)).astype(np.int64)
            if reference is None:
                reference = pixels
            if pixels.shape == reference.shape:
                apart = np.abs(pixels - reference)
                largest[name] = max(largest[name], int(apart.max()))
                means[name].append(float(apart.mean()))
        for _ in range(repeats):
            for name, function in candidates.items():
                start = time.process_time()
                function(*arguments)
                seconds[name] += time.process_time() - start
    print(f"{what:<34}  images/s  x Pillow  largest   mean difference")
    rows = []
    base = seconds[next(iter(candidates))]
    for name in candidates:
        rate = len(images) * repeats / seconds[name]
        row: Row = {"what": what, "name": name, "images_per_second": rate,
                    "ratio_to_pillow": base / seconds[name]}  # fmt: skip
        text = "other size"
        if means[name]:
            row |= {"largest": largest[name], "mean": float(np.mean(means[name]))}
            text = f"{row['largest']:7d}   {row['mean']:.3f}"
        print(f"  {name:<32}  {rate:8.0f}  {row['ratio_to_pillow']:8.2f}  {text}")
        rows.append(row)
    print()
    return rows


def installed(
    candidates: dict[str, tuple[str, Callable[[Any], Callable[..., Pixels]]]],
) -> Iterator[tuple[str, Callable[..., Pixels]]]:
    """Candidates whose package is there; the others are named."""
    for name, (package, make) in candidates.items():
        try:
            yield name, make(importlib.import_module(package))
        except Exception as error:  # a package may also lack its native library
            print(f"skipped: {name} ({package}: {str(error).splitlines()[0]})")


def pillow_decode(data: bytes) -> Pixels:
    return np.asarray(decode(data, "an image"))


def pillow_draft(data: bytes) -> Pixels:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (image.width // 2, image.height // 2))
    return np.asarray(image.convert("RGB"))


def of_torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[bytes], Pixels]:
    def decoded(data: bytes) -> Pixels:
        image = function(torch.frombuffer(data, dtype=torch.uint8))
        return image.permute(1, 2, 0).numpy()

    return decoded


_BUFFER = np.empty(3 << 24, np.uint8)

# Name: package, and what makes the decoder of it. The first is the reference.
DECODERS: dict[str, tuple[str, Callable[[Any], Callable[..., Pixels]]]] = {
    "Pillow": ("PIL", lambda _: pillow_decode),
    "Pillow, draft at 1/2": ("PIL", lambda _: pillow_draft),
    "simplejpeg": ("simplejpeg", lambda m: m.decode_jpeg),
    "simplejpeg, memory kept": (
        "simplejpeg",
        lambda m: lambda data: m.decode_jpeg(data, buffer=_BUFFER),
    ),
    "simplejpeg, fast upsampling": (
        "simplejpeg",
        lambda m: lambda data: m.decode_jpeg(data, fastupsample=True, buffer=_BUFFER),
    ),
    "simplejpeg, fast DCT": (
        "simplejpeg",
        lambda m: lambda data: m.decode_jpeg(data, fastdct=True, buffer=_BUFFER),
    ),
    "simplejpeg, at 1/2": (
        "simplejpeg",
        lambda m: (
            lambda data: m.decode_jpeg(
                data, min_height=1, min_width=1, min_factor=2, buffer=_BUFFER
            )
        ),
    ),
    "OpenCV": (
        "cv2",
        lambda m: lambda data: m.imdecode(np.frombuffer(data, np.uint8), m.IMREAD_COLOR_RGB),
    ),
    "torchcodec": ("torchcodec.decoders", lambda m: of_torch(m.decode_jpeg)),
    "torchvision.io (deprecated)": ("torchvision.io", lambda m: of_torch(m.decode_jpeg)),
    "PyTurboJPEG": (
        "turbojpeg",
        lambda m: functools.partial(m.TurboJPEG().decode, pixel_format=m.TJPF_RGB),
    ),
}


def pillow_resize(image: Image.Image, pixels: Pixels, box: Box, resample: Any) -> Pixels:
    return np.asarray(image.resize((SIZE, SIZE), resample, box=box))


def pillow_from_array(image: Image.Image, pixels: Pixels, box: Box, resample: Any) -> Pixels:
    return pillow_resize(Image.fromarray(pixels), pixels, box, resample)


def rust_resize(image: Image.Image, pixels: Pixels, box: Box, resample: Any) -> Pixels:
    return ArrayPicture(pixels).resized(box, SIZE, resample)


def torch_resize(image: Image.Image, pixels: Pixels, box: Box, resample: Any) -> Pixels:
    left, top, right, bottom = box
    crop = torch.from_numpy(pixels)[top:bottom, left:right].contiguous().permute(2, 0, 1)[None]
    made = torch.nn.functional.interpolate(
        crop, (SIZE, SIZE), mode=resample.name.lower(), antialias=True
    )
    return made[0].permute(1, 2, 0).numpy()


def opencv(module: Any) -> Callable[..., Pixels]:
    module.setNumThreads(1)
    ways = dict(
        zip(
            FILTERS,
            (module.INTER_LINEAR, module.INTER_AREA, module.INTER_NEAREST, module.INTER_CUBIC),
            strict=True,
        )
    )

    def resize(image: Image.Image, pixels: Pixels, box: Box, resample: Any) -> Pixels:
        left, top, right, bottom = box
        crop = pixels[top:bottom, left:right]
        return module.resize(crop, (SIZE, SIZE), interpolation=ways[resample])

    return resize


RESIZERS: dict[str, tuple[str, Callable[[Any], Callable[..., Pixels]]]] = {
    "Pillow": ("PIL", lambda _: pillow_resize),
    "Pillow, from an array": ("PIL", lambda _: pillow_from_array),
    "cykooz-resizer": ("cykooz_resizer", lambda _: rust_resize),
    "torch, uint8, antialiased": ("torch", lambda _: torch_resize),
    "OpenCV (not antialiased)": ("cv2", opencv),
}
# torch has no antialiased box or nearest that works on bytes.
FITS = {
    **dict.fromkeys(RESIZERS, FILTERS),
    "torch, uint8, antialiased": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
}


def prepared(data: bytes, index: int, resample: Any) -> tuple[Image.Image, Pixels, Box, Any]:
    image = decode(data, "an image")
    return image, np.array(image), crop_of(image.width, image.height, index), resample


def crop_of(width: int, height: int, index: int) -> Box:
    return training_crop(width, height, image_generator(0, 0, index))


def halved(data: bytes, index: int) -> bool:
    """Whether a crop is at least twice the output on both axes."""
    parsed = jpeg.parse(data)
    assert parsed is not None
    left, top, right, bottom = crop_of(parsed.width, parsed.height, index)
    return min(right - left, bottom - top) >= 2 * SIZE


def reference_path(data: bytes, index: int) -> Pixels:
    picture = PillowPicture(decode(data, "an image"))
    return cut_training(picture, SIZE, image_generator(0, 0, index))


def whole_path(data: bytes, index: int) -> Pixels:
    picture = FastPicture(data, "an image")
    picture.load()
    return cut_training(picture, SIZE, image_generator(0, 0, index))


def fast_path(data: bytes, index: int) -> Pixels:
    return cut_training(FastPicture(data, "an image"), SIZE, image_generator(0, 0, index))


PATHS: dict[str, Callable[..., Pixels]] = {
    "data.backend=pillow": reference_path,
    "fast, whole images decoded": whole_path,
    "data.backend=fast": fast_path,
}

if __name__ == "__main__":
    main()
