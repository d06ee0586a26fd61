"""The embedded data set: ten classes of shapes and textures, drawn with Pillow.

Only form depends on the class. Colours, polarity (light on dark or dark on light), place, size,
rotation, background, clutter and noise are independent of it, so that a linear classifier on pixels
learns little. Images are 64x64 JPEGs in ImageNet's layout, and are read by the same code.
"""

import colorsys
import hashlib
import io
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.random import Generator, Philox, SeedSequence
from PIL import Image, ImageDraw

from bn_inception.data.intake import marked
from bn_inception.errors import UserError
from bn_inception.files import first_line, locked

VERSION = 1  # increases with any change of the drawing: the images of a version never change
SIDE = 64
TRAIN_PER_CLASS, VAL_PER_CLASS = 400, 100

# Shapes are drawn at this multiple and reduced, because Pillow does not smooth edges.
_OVERSAMPLING = 2
_JPEG_QUALITY = 85
_MANIFEST = "manifest.sha256"

_log = logging.getLogger(__name__)

Point = tuple[float, float]
Colour = tuple[int, int, int]


def prepare(cache: Path) -> Path:
    """Find the data set in `cache`, or draw it there (about six seconds).

    The folder's name contains the version and a checksum over everything that determines the bytes,
    including Pillow's version. Every call checks the content of its files (about 0.2 s); if one is
    missing, changed or extra, the set is drawn again. If several processes start together, one
    draws and the others wait. The folder is renamed into place when it is complete.

    Returns:
        The folder that holds train/<class>/*.jpg and val/<class>/*.jpg.

    Raises:
        UserError: the cache folder cannot be written.
    """
    folder = cache / f"synthetic-v{VERSION}-{_settings_checksum()}"
    partial = folder.with_name(folder.name + ".partial")
    try:
        if _intact(folder):
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / "synthetic.lock"):
            if not _intact(folder):
                _log.info("drawing the synthetic data set into %s (about six seconds)", folder)
                for old in (folder, partial):  # damaged; left by a process that was killed
                    marked.refuse_foreign(old, "data.cache")
                    marked.remove(old)
                marked.make(partial)
                _write(partial)
                os.rename(partial, folder)
    except OSError as error:
        raise UserError(
            f"data.cache: {cache} cannot hold the synthetic data set: {first_line(error)}; "
            "set data.cache=FOLDER to a local folder with 20 MB free"
        ) from error
    return folder


def draw(name: str, split: str, index: int) -> Image.Image:
    """Draw one image (RGB, 64x64), a pure function of its arguments and `VERSION`.

    `name` is one of `CLASSES`, `split` "train" or "val", `index` a number within both, from 0.
    """
    number = list(CLASSES).index(name)
    key = SeedSequence([VERSION, number, ("train", "val").index(split), index])
    random = Generator(Philox(key))
    side = SIDE * _OVERSAMPLING
    front, back, third = _colours(random)

    canvas = _background(random, side, back, third)
    _clutter(random, canvas, side, (front, back, third))
    mask = Image.new("L", (side, side))
    radius = side * _uniform(random, 0.24, 0.42)
    room = side / 2 - radius * 0.85
    centre = (side / 2 + _uniform(random, -room, room), side / 2 + _uniform(random, -room, room))
    CLASSES[name](_Form(random, ImageDraw.Draw(mask), centre, radius))
    canvas.paste(_gradient(random, side, front, _shade(random, front)), mask=mask)
    if random.random() < 0.3:
        _bar(random, ImageDraw.Draw(canvas), side, third)

    small = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    strength = _uniform(random, 4, 40)
    noise = (random.random(pixels.shape) - 0.5) * strength
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _settings_checksum() -> str:
    deciding = (VERSION, SIDE, TRAIN_PER_CLASS, VAL_PER_CLASS, _JPEG_QUALITY, PIL.__version__)
    return hashlib.sha256(repr(deciding).encode()).hexdigest()[:12]


def _write(folder: Path) -> None:
    digest = hashlib.sha256()
    for split, count in (("train", TRAIN_PER_CLASS), ("val", VAL_PER_CLASS)):
        for name in sorted(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                encoded = io.BytesIO()
                draw(name, split, index).save(encoded, "JPEG", quality=_JPEG_QUALITY)
                relative = f"{split}/{name}/{index:04d}.jpg"
                (folder / relative).write_bytes(encoded.getvalue())
                _add(digest, relative, encoded.getvalue())
    (folder / _MANIFEST).write_text(digest.hexdigest() + "\n")


def _intact(folder: Path) -> bool:
    try:
        expected = (folder / _MANIFEST).read_text().strip()
        digest = hashlib.sha256()
        for relative in _listed(folder):
            _add(digest, relative, (folder / relative).read_bytes())
    except OSError:
        return False
    return digest.hexdigest() == expected


def _listed(folder: Path) -> Iterator[str]:
    for split in ("train", "val"):
        for name in sorted(os.listdir(folder / split)):
            for file in sorted(os.listdir(folder / split / name)):
                yield f"{split}/{name}/{file}"


def _add(digest: "hashlib._Hash", relative: str, data: bytes) -> None:
    digest.update(f"{relative}\n{len(data)}\n".encode() + data)


# Shared by all classes.


def _uniform(random: Generator, low: float, high: float) -> float:
    return low + (high - low) * random.random()


def _colours(random: Generator) -> tuple[Colour, Colour, Colour]:
    """Three colours. The first two differ in lightness; either may be the lighter."""
    light, dark = _uniform(random, 0.6, 1.0), _uniform(random, 0.1, 0.4)
    values = (light, dark) if random.random() < 0.5 else (dark, light)
    hsv = ((random.random(), _uniform(random, 0.1, 0.9), v) for v in (*values, random.random()))
    front, back, third = ((int(c * 255) for c in colorsys.hsv_to_rgb(*colour)) for colour in hsv)
    return _colour(front), _colour(back), _colour(third)


def _colour(channels: Iterable[int]) -> Colour:
    red, green, blue = channels
    return red, green, blue


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    return _colour(int(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def _shade(random: Generator, colour: Colour) -> Colour:
    end = (255, 255, 255) if random.random() < 0.5 else (0, 0, 0)
    return _mixed(colour, end, _uniform(random, 0.0, 0.3))


def _gradient(random: Generator, side: int, start: Colour, end: Colour) -> Image.Image:
    corners = Image.fromarray((random.random((2, 2)) * 255).astype(np.uint8))
    ramp = corners.resize((side, side), Image.Resampling.BILINEAR)
    size = (side, side)
    return Image.composite(Image.new("RGB", size, end), Image.new("RGB", size, start), ramp)


def _background(random: Generator, side: int, back: Colour, third: Colour) -> Image.Image:
    canvas = _gradient(random, side, back, _mixed(back, third, _uniform(random, 0.0, 0.5)))
    if random.random() < 0.5:  # coarse cloudy texture
        cells = 3 + int(random.random() * 6)
        grain = (random.random((cells, cells)) * _uniform(random, 20, 110)).astype(np.uint8)
        cloud = Image.fromarray(grain).resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(Image.new("RGB", (side, side), third), mask=cloud)
    return canvas


def _clutter(
    random: Generator, canvas: Image.Image, side: int, colours: tuple[Colour, Colour, Colour]
) -> None:
    """A few faint lines and specks in the object's colours, under the object."""
    pen = ImageDraw.Draw(canvas)
    front, back, third = colours
    for _ in range(int(random.random() * 5)):
        colour = _mixed(back, front if random.random() < 0.5 else third, _uniform(random, 0.2, 0.8))
        if random.random() < 0.5:
            _bar(random, pen, side, colour)
        else:
            x, y = random.random() * side, random.random() * side
            size = side * _uniform(random, 0.02, 0.07)
            pen.rectangle((x - size, y - size, x + size, y + size), fill=colour)


def _bar(random: Generator, pen: ImageDraw.ImageDraw, side: int, colour: Colour) -> None:
    """A thin line across the image, over or under the object."""
    ends = [(random.random() * side, random.random() * side) for _ in range(2)]
    pen.line(ends, fill=colour, width=1 + int(random.random() * side * 0.04))


@dataclass(frozen=True)
class _Form:
    """Where a class paints its form: a mask, in the coordinates of the unit disc."""

    random: Generator
    pen: ImageDraw.ImageDraw
    centre: Point
    radius: float  # of the disc, in pixels

    def angle(self) -> float:
        return 2 * math.pi * self.random.random()

    def disc(self, centre: Point, radius: float, fill: int = 255) -> None:
        """A disc around a place in pixels, of a radius in pixels."""
        x, y = centre
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def turned(self, points: list[Point], angle: float) -> list[Point]:
        """Points of the unit disc, turned by `angle` (radians), in pixels."""
        cos, sin = math.cos(angle) * self.radius, math.sin(angle) * self.radius
        left, top = self.centre
        return [(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in points]

    def polygon(self, points: list[Point], angle: float) -> None:
        self.pen.polygon(self.turned(points, angle), fill=255)


def _regular(corners: int, radii: tuple[float, ...] = (1.0,)) -> list[Point]:
    angles = [2 * math.pi * i / corners for i in range(corners)]
    lengths = itertools.cycle(radii)
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(lengths, angles, strict=False)]


# The classes.


def _circle(form: _Form) -> None:
    form.disc(form.centre, form.radius)


def _ring(form: _Form) -> None:
    form.disc(form.centre, form.radius)
    form.disc(form.centre, form.radius * _uniform(form.random, 0.45, 0.7), fill=0)


def _crescent(form: _Form) -> None:
    form.disc(form.centre, form.radius)
    (centre,) = form.turned([(_uniform(form.random, 0.45, 0.7), 0.0)], form.angle())
    form.disc(centre, form.radius * 0.85, fill=0)


def _triangle(form: _Form) -> None:
    form.polygon(_regular(3), form.angle())


def _square(form: _Form) -> None:
    form.polygon(_regular(4), form.angle())


def _star(form: _Form) -> None:
    points = _regular(10, (1.0, _uniform(form.random, 0.35, 0.5)))
    form.polygon(points, form.angle())


def _cross(form: _Form) -> None:
    angle, half = form.angle(), _uniform(form.random, 0.18, 0.3)
    for turn in (0.0, math.pi / 2):
        form.polygon([(-1.0, -half), (1.0, -half), (1.0, half), (-1.0, half)], angle + turn)


def _stripes(form: _Form) -> None:
    angle, bars = form.angle(), 3 + int(form.random.random() * 3)
    for bar in range(bars):
        low = -1 + 2 * bar / bars
        high = low + 1 / bars
        ends = [math.sqrt(max(0.0, 1 - min(1.0, abs(y)) ** 2)) for y in (low, high)]
        form.polygon([(-ends[0], low), (ends[0], low), (ends[1], high), (-ends[1], high)], angle)


def _checks(form: _Form) -> None:
    angle, cells = form.angle(), 3 + int(form.random.random() * 2)
    step = 2 / cells
    far = step * 0.8
    for row in range(cells):
        for column in range(row % 2, cells, 2):
            x, y = (-1 + step * column) * 0.8, (-1 + step * row) * 0.8
            form.polygon([(x, y), (x + far, y), (x + far, y + far), (x, y + far)], angle)


def _dots(form: _Form) -> None:
    around = _regular(5 + int(form.random.random() * 2))
    places = [(0.0, 0.0), *((x * 0.72, y * 0.72) for x, y in around)]
    for place in form.turned(places, form.angle()):
        form.disc(place, form.radius * 0.24)


_PAINTED = (
    *(_checks, _circle, _crescent, _cross, _dots),
    *(_ring, _square, _star, _stripes, _triangle),
)
CLASSES: dict[str, Callable[[_Form], None]] = {paint.__name__[1:]: paint for paint in _PAINTED}
