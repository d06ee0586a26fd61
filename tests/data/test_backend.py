"""The fast backend beside Pillow: near it filter by filter, and as strict about what it reads."""

import io
import itertools
from collections.abc import Callable
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import encoded, photo

from bn_inception.data.pixels import jpeg
from bn_inception.data.pixels.backend import Backend, FastPicture, open_picture
from bn_inception.data.pixels.crops import FILTERS, training_crop
from bn_inception.data.pixels.decode import UnreadableImage, decode

NAME = "n01440764_1.JPEG"
BILINEAR, BOX, NEAREST, BICUBIC = FILTERS
names = pytest.mark.parametrize("resample", FILTERS, ids=lambda resample: resample.name)

# Largest and mean difference from Pillow in grey levels that resizing equal pixels may make.
#
# Bilinear and cubic: Pillow resizes across and then down, fast_image_resize down and then across,
# and each rounds to 8 bits between. A cubic overshoots at edges, and what is clipped there differs.
# Nearest and box: where a sample or a window's border falls exactly between two pixels, floating
# point decides which is taken, and a row or column may be its neighbour's
# (`test_nearest_and_box_are_at_most_one_pixel_aside`).
RESIZE = {
    "photographs": {BILINEAR: (2, 0.3), BOX: (255, 0.6), NEAREST: (255, 2.0), BICUBIC: (32, 0.4)},
    "smooth": {BILINEAR: (1, 0.2), BOX: (16, 0.1), NEAREST: (24, 0.5), BICUBIC: (3, 0.3)},
    "hard": {BILINEAR: (2, 0.3), BOX: (128, 4.0), NEAREST: (255, 20.0), BICUBIC: (48, 6.0)},
}


def hard(seed: int, size: tuple[int, int]) -> Image.Image:
    """Black, white and pure colours side by side: the worst for every filter."""
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).choice([0, 255], shape).astype(np.uint8))


def generated(kind: str) -> list[bytes]:
    make = {"smooth": photo, "hard": hard}[kind]
    sizes = [(40 + 31 * n, 50 + 17 * n) for n in range(8)]
    ways = itertools.cycle(["4:2:0", "4:4:4", "4:2:2"])
    return [
        encoded(make(n, size), quality=90, subsampling=next(ways), progressive=n == 3)
        for n, size in enumerate(sizes)
    ]


@pytest.fixture(scope="module", params=["photographs", "smooth", "hard"])
def jpegs(request: pytest.FixtureRequest) -> tuple[str, list[bytes]]:
    """Real photographs where there are any, and JPEGs made here."""
    if request.param != "photographs":
        return request.param, generated(request.param)
    with ZipFile(request.getfixturevalue("shared_data") / "imagenet-300.zip") as archive:
        files = [name for name in archive.namelist() if name.endswith(".JPEG")][::23]
        return request.param, [archive.read(name) for name in files]


def boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [training_crop(width, height, np.random.default_rng(seed)) for seed in range(3)]


def test_decoding_alone(jpegs: tuple[str, list[bytes]]) -> None:
    """Both are libjpeg-turbo: the releases that are tested decode alike to the last bit."""
    _, images = jpegs
    assert sum(jpeg.parse(data) is not None for data in images) >= 0.8 * len(images)
    for data in images:
        assert np.array_equal(FastPicture(data, NAME).load(), np.asarray(decode(data, NAME)))


@names
def test_the_whole(jpegs: tuple[str, list[bytes]], resample: Image.Resampling) -> None:
    """Decoded as far as the crop needs, and resized: nothing is added to the resizing's share."""
    kind, images = jpegs
    largest, mean = RESIZE[kind][resample]
    for data in images:
        fast, pillow = (open_picture(data, NAME, backend) for backend in Backend)
        for size, box in itertools.product((224, 64), boxes(fast.width, fast.height)):
            one, other = (each.resized(box, size, resample) for each in (fast, pillow))
            apart = np.abs(one.astype(int) - other)
            assert apart.max() <= largest and apart.mean() <= mean


@given(st.integers(1, 250), st.integers(1, 250), st.integers(1, 300), st.integers(0, 1000))
@settings(max_examples=60)
def test_nearest_and_box_are_at_most_one_pixel_aside(
    width: int, height: int, size: int, seed: int
) -> None:
    where = np.zeros((height, width, 3), np.uint8)
    where[:, :, 0], where[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    data = encoded(Image.fromarray(where), "PNG")
    box = training_crop(width, height, np.random.default_rng(seed))
    fast, pillow = (open_picture(data, NAME, backend) for backend in Backend)
    for resample in (NEAREST, BOX):
        one, other = (each.resized(box, size, resample) for each in (fast, pillow))
        assert np.abs(one.astype(int) - other).max() <= 1


@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from(["4:2:0", "4:2:2", "4:4:4", "L"]),
    st.integers(0, 7),
    st.integers(0, 1000),
)
@settings(max_examples=150)
def test_a_part_is_decoded_as_in_the_whole(
    width: int, height: int, colours: str, restart: int, seed: int
) -> None:
    """However little of the stream is decoded, the crop's pixels are the whole picture's."""
    image = hard(seed, (width, height))
    if colours == "L":
        image, colours = image.convert("L"), -1
    data = encoded(image, subsampling=colours, restart_marker_blocks=restart)
    assert jpeg.parse(data) is not None
    whole = FastPicture(data, NAME)
    whole.load()
    for box in boxes(width, height):
        for resample in (NEAREST, BICUBIC):
            assert np.array_equal(
                FastPicture(data, NAME).resized(box, 32, resample), whole.resized(box, 32, resample)
            )


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_what_is_below_a_crop_is_not_decoded(options: dict[str, bool]) -> None:
    data = encoded(hard(0, (256, 256)), subsampling="4:2:0", **options)
    parsed = jpeg.parse(data)
    assert parsed is not None
    stream, intact = jpeg.above(data, parsed, 150)
    assert intact is bool(options)  # a progressive one is decoded as a whole
    assert Image.open(io.BytesIO(stream)).size == (256, 256 if options else 154)
    assert jpeg.above(data, parsed, 240) == (data, True)


def oriented(value: int, description: str = "") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    exif[0x010E] = description
    return encoded(photo(1), exif=exif)


def oriented_xmp(value: int) -> bytes:
    return encoded(
        photo(1),
        xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/'
        b'1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        b'tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>' % value,
    )


TAG = "\x01\x12\x01"
"""Holds the bytes of the orientation tag in both byte orders."""


ODD: dict[str, Callable[[], bytes]] = {
    "CMYK": lambda: encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0))),
    "RGB without YCbCr": lambda: encoded(photo(1), keep_rgb=True),
    "PNG": lambda: encoded(photo(1), "PNG"),
    "alpha": lambda: encoded(Image.new("RGBA", (9, 9), (200, 0, 0, 128)), "PNG"),
    "16 bits": lambda: encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
    "animated": lambda: encoded(photo(1), "GIF", save_all=True, append_images=[photo(2), photo(3)]),
    "turned": lambda: oriented(6),
    "mirrored": lambda: oriented(2),
    "turned, with the tag's bytes elsewhere": lambda: oriented(6, TAG),
    "XMP orientation": lambda: oriented_xmp(6),
    "trailing bytes": lambda: encoded(photo(1)) + b"\0\0\0",
    "several pictures": lambda: encoded(photo(1), "MPO", save_all=True, append_images=[photo(2)]),
}


PLAIN: dict[str, Callable[[], bytes]] = {
    "upright": lambda: oriented(1),
    "upright, with the tag's bytes elsewhere": lambda: oriented(1, TAG),
    "upright XMP": lambda: oriented_xmp(1),
    "no EXIF": lambda: encoded(photo(1)),
    "grey": lambda: encoded(photo(1).convert("L")),
    "progressive": lambda: encoded(photo(1), progressive=True),
    "comment": lambda: encoded(photo(1), comment=b"by hand"),
    "ICC": lambda: encoded(photo(1), icc_profile=bytes(100)),
}


@pytest.mark.parametrize("kind", [*ODD, *PLAIN])
def test_plain_jpegs_alone_are_not_left_to_pillow(kind: str) -> None:
    data = {**ODD, **PLAIN}[kind]()
    assert (jpeg.parse(data) is not None) is (kind in PLAIN)
    picture = FastPicture(data, NAME)
    assert np.array_equal(picture.load(), np.asarray(decode(data, NAME)))
    assert picture.load().shape == (picture.height, picture.width, 3)


def verdict(data: bytes, backend: Backend) -> str | tuple[int, int]:
    """Why an image cannot be read, or its size."""
    try:
        picture = open_picture(data, NAME, backend)
        picture.resized((0, 0, 9, 9), 16, BILINEAR)
        picture.load()
    except UnreadableImage as error:
        assert error.name == NAME
        return error.reason
    return picture.width, picture.height


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_truncated_files_are_refused_with_pillows_words(options: dict[str, int]) -> None:
    data = encoded(hard(4, (120, 90)), quality=90, **options)
    for end in [*range(0, 700, 3), *range(700, len(data), 211), len(data) - 2, len(data)]:
        assert verdict(data[:end], Backend.fast) == verdict(data[:end], Backend.pillow)


@given(st.data())
@settings(max_examples=200)
def test_damage_is_judged_as_pillow_does(data: st.DataObject) -> None:
    """One byte anywhere in the headers is changed: the same verdict, and the same size."""
    whole = encoded(photo(7, (60, 50)), quality=90)
    at = data.draw(st.integers(0, whole.index(b"\xff\xda") + 13))
    damaged = bytearray(whole)
    damaged[at] ^= data.draw(st.integers(1, 255))
    assert verdict(bytes(damaged), Backend.fast) == verdict(bytes(damaged), Backend.pillow)
