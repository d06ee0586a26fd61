"""What encoding photographs again, smaller, saves and loses: `prepare shorter_side=N quality=Q`.

    python scripts/reencoding_cost.py PHOTOGRAPHS [output=FILE.json] [images=300] [boxes=4]

PHOTOGRAPHS is a folder of images, at any depth. For N of 256 to 512 and Q of 85, 90 and 95:

size      bytes as stored, and CPU time of decoding them whole (this thread's, the least of three,
          all variants of one photograph in turns), against the original bytes
pixels    what the network sees, cut from the original and from what is stored: mean absolute
          difference in grey levels, and PSNR, over the values of all crops together

The crops are training's (`boxes` a photograph, as `training_crop` draws them over 8 to 100 % of the
area, each with all four filters), in total and by the box's share of the area; evaluation's single
crop (shorter side to 256); and the five crops of the centre square at GN's largest scale, 352. All
are 224 pixels. A box drawn on the original is mapped to the smaller image in proportion, so that
the difference is that of the detail and not of the draw.

As a yardstick, the last rows of differences compare the original's training crops with each other:
the same box, cut with another filter than bilinear. Training draws one of the four at random.

Photographs whose shorter side is not above N keep their bytes, as in `prepare`, and count as they
are. The same pixels and sizes come out on every call with the same versions of Pillow and libjpeg.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from bn_inception.benchmark.rows import as_table, write_rows
from bn_inception.cli.arguments import split_positional
from bn_inception.data.crops import EVALUATION_CROP, FILTERS, Box, single_crop, training_crop
from bn_inception.data.decode import decode
from bn_inception.data.order import image_generator
from bn_inception.data.prepare import Recompression
from bn_inception.data.source import is_image
from bn_inception.errors import UserError
from bn_inception.evaluation.crops import SCALES, CropSetting, crops

SIDES = (256, 320, 352, 384, 448, 512)
QUALITIES = (85, 90, 95)
ORIGINAL = "original"
SIZE = EVALUATION_CROP
REPEATS = 3
SEED = 1
# Upper ends of a training crop's share of the area.
BINS = {"train_8_20": 0.2, "train_20_50": 0.5, "train_50_100": 1.0}
SINGLE, LARGEST = "single_256", "gn_352"

Pixels = NDArray[np.uint8]


class View(NamedTuple):
    """One crop of a photograph: `group` is the column of the table that it counts in."""

    group: str
    box: Box
    resample: Image.Resampling


@dataclass
class Sums:
    """Differences of two sets of pixels, added up."""

    values: int = 0
    absolute: int = 0
    squares: int = 0

    def add(self, one: Pixels, other: Pixels) -> None:
        self.values += one.size
        if one is not other:
            difference = one.astype(np.int32) - other
            self.absolute += int(np.abs(difference).sum())
            self.squares += int(np.square(difference).sum())

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.values + other.values,
            self.absolute + other.absolute,
            self.squares + other.squares,
        )

    def measure(self, name: str) -> float | None:
        """Mean absolute difference, or PSNR in dB; None of nothing, or of equal pixels."""
        if not self.values:
            return None
        if name == "levels":
            return self.absolute / self.values
        return 10 * np.log10(255**2 * self.values / self.squares) if self.squares else None


@dataclass(frozen=True)
class SizeRow:
    """What one way of storing costs in bytes and time.

    Attributes:
        stored: the original bytes, or N and Q.
        kept: share of the photographs that keep their own bytes.
        kilobytes: mean of a photograph.
        bytes_ratio: to the originals'.
        decode_ms: CPU milliseconds of decoding one.
        decode_ratio: the originals' decoding time as a multiple of this one.
        enlarged: share of the training crops with fewer stored pixels than the network's input.
        enlarged_8_20: of those of at most a fifth of the area.
    """

    stored: str
    kept: float
    kilobytes: float
    bytes_ratio: float
    decode_ms: float
    decode_ratio: float
    enlarged: float
    enlarged_8_20: float


@dataclass(frozen=True)
class DifferenceRow:
    """How far one way of storing changes what the network sees; one column a group of crops.

    Attributes:
        stored: as in `SizeRow`; or the filter instead of bilinear, on originals.
        measure: "levels", the mean absolute difference of 0 to 255, or "PSNR" in dB.
        train: training crops, all.
        train_8_20: those of 8 to 20 % of the area; and so on.
        single_256: evaluation's single crop.
        gn_352: crops at GN's largest scale.
    """

    stored: str
    measure: str
    train: float | None
    train_8_20: float | None
    train_20_50: float | None
    train_50_100: float | None
    single_256: float | None
    gn_352: float | None


@dataclass(frozen=True)
class FilterRow:
    """Mean absolute difference of the training crops by their filter."""

    stored: str
    bilinear: float | None
    box: float | None
    nearest: float | None
    bicubic: float | None


class Measured:
    """Sums over photographs, by way of storing."""

    def __init__(self) -> None:
        self.photographs = 0
        self.kept: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.boxes: dict[str, int] = defaultdict(int)
        self.enlarged: dict[tuple[str, str], int] = defaultdict(int)
        self.sums: dict[tuple[str, str, str], Sums] = defaultdict(Sums)
        """By way of storing, group of crops, filter."""

    def add(self, data: bytes, name: str, number: int, boxes: int) -> None:
        """Measure one photograph.

        Args:
            data: its own bytes.
            name: for errors.
            number: its draws are those of image `number` in the first epochs.
            boxes: training boxes, one an epoch.
        """
        stored = {ORIGINAL: data}
        for side in SIDES:
            for quality in QUALITIES:
                stored[f"N={side} q={quality}"] = Recompression(side, quality).encode(data, name)
        self.photographs += 1
        self._add_times(stored, name, number)
        original = decode(data, name)
        drawn = list(_views(original.width, original.height, number, boxes))
        references = [_cut(original, original, view) for view in drawn]
        for key, content in stored.items():
            self.kept[key] += content is data
            self.bytes[key] += len(content)
            image = original if content is data else decode(content, name)
            self._add_enlarged(key, original, image, drawn)
            for view, reference in zip(drawn, references, strict=True):
                pixels = reference if image is original else _cut(image, original, view)
                self.sums[key, view.group, view.resample.name].add(pixels, reference)
        bilinear: dict[Box, Pixels] = {}
        for view, reference in zip(drawn, references, strict=True):
            if view.resample is Image.Resampling.BILINEAR:
                bilinear[view.box] = reference
            elif view.group in BINS:
                self.sums[_instead(view.resample), view.group, ""].add(
                    reference, bilinear[view.box]
                )

    def _add_times(self, stored: dict[str, bytes], name: str, number: int) -> None:
        keys = list(stored)
        first = number % len(keys)  # none is always the one after the largest
        turns = keys[first:] + keys[:first]
        least = dict.fromkeys(keys, float("inf"))
        for _ in range(REPEATS):
            for key in turns:
                start = time.thread_time()
                decode(stored[key], name)
                least[key] = min(least[key], time.thread_time() - start)
        for key, seconds in least.items():
            self.seconds[key] += seconds

    def _add_enlarged(
        self, key: str, original: Image.Image, image: Image.Image, drawn: list[View]
    ) -> None:
        share = image.width * image.height / (original.width * original.height)
        for group, (left, top, right, bottom), resample in drawn:
            if group in BINS and resample is FILTERS[0]:
                few = (right - left) * (bottom - top) * share < SIZE**2
                self.enlarged[key, group] += few
                if key == ORIGINAL:
                    self.boxes[group] += 1

    def size_rows(self) -> list[SizeRow]:
        boxes = sum(self.boxes.values())
        return [
            SizeRow(
                stored=key,
                kept=self.kept[key] / self.photographs,
                kilobytes=self.bytes[key] / self.photographs / 1e3,
                bytes_ratio=self.bytes[key] / self.bytes[ORIGINAL],
                decode_ms=1e3 * self.seconds[key] / self.photographs,
                decode_ratio=self.seconds[ORIGINAL] / self.seconds[key],
                enlarged=sum(self.enlarged[key, group] for group in BINS) / boxes,
                enlarged_8_20=self.enlarged[key, "train_8_20"] / max(self.boxes["train_8_20"], 1),
            )
            for key in self.bytes
        ]

    def difference_rows(self, measure: str) -> list[DifferenceRow]:
        keys = [key for key in self.bytes if key != ORIGINAL]
        keys += [_instead(resample) for resample in FILTERS[1:]]
        rows = []
        for key in keys:
            groups = {group: self._sum(key, group) for group in (*BINS, SINGLE, LARGEST)}
            train = sum((groups[group] for group in BINS), Sums())
            columns = {group: sums.measure(measure) for group, sums in groups.items()}
            rows.append(DifferenceRow(key, measure, train.measure(measure), **columns))
        return rows

    def filter_rows(self) -> list[FilterRow]:
        rows = []
        for key in self.bytes:
            if key != ORIGINAL:
                sums = {
                    resample.name.lower(): sum(
                        (self.sums[key, group, resample.name] for group in BINS), Sums()
                    ).measure("levels")
                    for resample in FILTERS
                }
                rows.append(FilterRow(key, **sums))
        return rows

    def _sum(self, key: str, group: str) -> Sums:
        names = ["", *(resample.name for resample in FILTERS)]
        return sum((self.sums[key, group, name] for name in names), Sums())


def _instead(resample: Image.Resampling) -> str:
    return f"{resample.name.lower()} for bilinear"


def _views(width: int, height: int, number: int, boxes: int) -> Iterator[View]:
    for epoch in range(boxes):
        box = training_crop(width, height, image_generator(SEED, epoch, number))
        share = (box[2] - box[0]) * (box[3] - box[1]) / (width * height)
        # Rounding may bring a share a hair over 1.
        group = next((name for name, end in BINS.items() if share <= end), "train_50_100")
        yield from (View(group, box, resample) for resample in FILTERS)
    yield View(SINGLE, single_crop(width, height, SIZE), Image.Resampling.BILINEAR)
    setting = CropSetting.gn144
    at_largest = crops(setting, width, height, SIZE)[-setting.count // len(SCALES) :]
    # The first square is the centre one: five crops (the sixth is the whole square), each followed
    # by its mirror.
    for crop in at_largest[:10:2]:
        yield View(LARGEST, crop.box, Image.Resampling.BILINEAR)


def _cut(image: Image.Image, original: Image.Image, view: View) -> Pixels:
    x, y = image.width / original.width, image.height / original.height
    left, top, right, bottom = view.box
    # Rounding must not take the far edge out of the image: Pillow refuses such a box.
    box = (left * x, top * y, min(right * x, image.width), min(bottom * y, image.height))
    return np.asarray(image.resize((SIZE, SIZE), view.resample, box=box))


def _settings(arguments: list[str]) -> tuple[Path, Path | None, int, int]:
    plain, given = split_positional(arguments)
    values = {"output": "", "images": "300", "boxes": "4"}
    for word in given:
        key, _, value = word.partition("=")
        if key not in values:
            raise UserError(f"{word}: unknown; there are {', '.join(f'{k}=' for k in values)}")
        values[key] = value
    for key in ("images", "boxes"):
        if not values[key].isdecimal() or not int(values[key]):
            raise UserError(f"{key}: {values[key]!r} is not 1 or more")
    if len(plain) != 1 or not Path(plain[0]).is_dir():
        raise UserError(f"{' '.join(plain) or 'PHOTOGRAPHS'}: give one folder of photographs")
    output = Path(values["output"]) if values["output"] else None
    return Path(plain[0]), output, int(values["images"]), int(values["boxes"])


def measure(arguments: list[str]) -> None:
    """Measure, print the tables, write the rows."""
    root, output, wanted, boxes = _settings(arguments)
    files = sorted(path for path in root.rglob("*") if is_image(path.name))[:wanted]
    if not files:
        raise UserError(f"{root}: holds no images; give a folder of photographs")
    measured = Measured()
    for number, path in enumerate(files):
        measured.add(path.read_bytes(), str(path), number, boxes)
        if sys.stderr.isatty():
            print(f"{number + 1}/{len(files)}", end="\r", file=sys.stderr)
    turbo = features.version("libjpeg_turbo") or features.version("jpg")
    versions = f"Pillow {features.version('pil')}, libjpeg {turbo}"
    sizes, filters = measured.size_rows(), measured.filter_rows()
    levels, psnr = measured.difference_rows("levels"), measured.difference_rows("PSNR")
    print(f"{len(files)} photographs, {boxes} training boxes each, {SIZE} pixels; {versions}")
    for title, rows in (
        ("Size, decoding, and crops with fewer stored pixels than the network's input", sizes),
        ("Mean absolute difference of what the network sees, grey levels of 0 to 255", levels),
        ("The same as PSNR, dB", psnr),
        ("Mean absolute difference of training crops by filter", filters),
    ):
        print(f"\n{title}\n\n{as_table(rows)}")
    if output is not None:
        about = {
            "command": " ".join(["python scripts/reencoding_cost.py", *arguments]),
            "photographs": len(files),
            "boxes": boxes,
            "versions": versions,
        }
        write_rows(output, [*sizes, *levels, *psnr, *filters], about)
        print(f"\n{output}")


if __name__ == "__main__":
    try:
        measure(sys.argv[1:])
    except UserError as failure:
        print(failure, file=sys.stderr)
        sys.exit(2)
