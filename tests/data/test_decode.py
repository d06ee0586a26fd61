"""Every odd file is read correctly or refused by name, by both backends alike."""

import io
import struct
import warnings
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import encoded, photo

from bn_inception.data.pixels import backend, decode
from bn_inception.data.pixels.backend import Backend, open_picture
from bn_inception.data.pixels.decode import UnreadableImage

NAME = "n01440764_1.JPEG"


def pixels(data):
    """What both backends read, which is the same; UnreadableImage where they refuse alike."""
    read: list[UnreadableImage | np.ndarray] = []
    for way in Backend:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # nothing may flood the log
                read.append(open_picture(data, NAME, way).pixels().astype(int))
        except UnreadableImage as error:
            read.append(error)
    one, other = read
    if isinstance(one, UnreadableImage):
        assert str(one) == str(other) == f"{NAME}: {one.reason}" and "\n" not in str(one)
        raise one
    assert np.array_equal(one, other) and one.shape[2] == 3
    return one


def png(width, height, depth, colour_type, rows, *chunks):
    """A PNG by hand: Pillow writes no 16-bit colour."""
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (b"IHDR" + header, *chunks, b"IDAT" + zlib.compress(lines), b"IEND")
    framed = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_cmyk_jpeg():
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(pixels(data) - (255, 0, 0)).max() < 8


def test_grey_bilevel_and_palette():
    assert (pixels(encoded(Image.new("L", (16, 16), 77), quality=100)) == 77).all()
    assert (pixels(encoded(Image.new("1", (16, 16), 1), "PNG")) == 255).all()
    image = photo(2).quantize(16)
    assert (pixels(encoded(image, "PNG")) == np.asarray(image.convert("RGB"))).all()


def test_16_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 64 * 16).round().astype(np.uint16).reshape(16, 64)
    read = pixels(encoded(Image.fromarray(values), "PNG"))
    assert (read == np.round(values / 257)[:, :, None]).all()
    assert (read.min(), read.max()) == (0, 255)
    values = np.array([[[0, 65535, 0x8000], [0x1234, 0x4000, 0xC0FF]]], dtype=">u2")
    read = pixels(png(2, 1, 16, 2, values.tobytes()))
    assert np.abs(read - values / 257).max() <= 1


def test_transparency_shows_white():
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    assert np.abs(pixels(encoded(half, "PNG")) - (227, 127, 127)).max() <= 1
    clear = Image.new("LA", (4, 4), (0, 0))
    assert (pixels(encoded(clear, "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 50, 60, 70])
    assert (pixels(encoded(palette, "PNG")) == (50, 60, 70)).all()
    assert (pixels(encoded(palette, "PNG", transparency=1)) == 255).all()
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    assert (pixels(encoded(keyed, "PNG", transparency=(1, 2, 3))) == 255).all()


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-'
    b'ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied(orientation):
    upright = np.zeros((24, 32, 3), np.uint8)
    upright[:8, :8] = 255  # a white corner at the top left, in a landscape
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for block in ({"exif": exif}, {"xmp": XMP % orientation}):
        assert np.abs(pixels(encoded(stored, quality=100, **block)) - upright).mean() < 2


@pytest.mark.parametrize(
    "block",
    [
        b"garbage",
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\xff\xff\0\0\x01\x1a\0\x05\0\0\0\x01",
        b"Exif\0\0" + bytes(range(256)),
    ],
)
def test_garbage_exif_is_ignored(block):
    image = photo(3)
    read = pixels(encoded(image, exif=block, quality=95))
    assert np.abs(read - np.asarray(image)).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "MPO"])
def test_of_several_pictures_the_first_is_read(kind):
    several = encoded(photo(1), kind, save_all=True, append_images=[photo(2), photo(3)])
    assert (pixels(several) == pixels(encoded(photo(1), kind))).all()


PLAIN: dict[str, bytes] = {
    "upright": encoded(photo(1), xmp=XMP % 1),
    "grey": encoded(photo(1).convert("L")),
    "progressive": encoded(photo(1), progressive=True),
    "restart markers": encoded(photo(1), restart_marker_blocks=2),
    "comment": encoded(photo(1), comment=b"by hand"),
    "ICC": encoded(photo(1), icc_profile=bytes(100)),
    "RGB without YCbCr": encoded(photo(1), keep_rgb=True),
    "4:1:1": simplejpeg.encode_jpeg(np.array(photo(1)), colorsubsampling="411"),
    "4:4:0": simplejpeg.encode_jpeg(np.array(photo(1)), colorsubsampling="440"),
    "trailing bytes": encoded(photo(1)) + b"\0\0\0",
    "a second picture behind": encoded(photo(1)) + encoded(photo(2)),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_jpegs_are_not_left_to_pillow(kind, monkeypatch):
    expected = photo(1).convert("L" if kind == "grey" else "RGB").convert("RGB")
    assert np.abs(pixels(PLAIN[kind]) - np.asarray(expected)).mean() < 10
    monkeypatch.setattr(backend, "decode", None)
    open_picture(PLAIN[kind], NAME, Backend.fast)


@pytest.mark.parametrize(
    ("kind", "options", "spare"),
    [
        ("JPEG", {}, 2),
        ("JPEG", {"progressive": True}, 2),
        ("JPEG", {"restart_marker_blocks": 1}, 2),
        ("PNG", {}, 24),
    ],
)
def test_a_truncated_file_is_refused_wherever_it_ends(kind, options, spare):
    data = encoded(photo(4, (120, 90)), kind, **options)
    whole = pixels(data)
    for end in range(1, len(data), 7):
        try:
            read = pixels(data[:end])
        except UnreadableImage:
            continue
        assert end >= len(data) - spare  # only what follows the last pixel may be missing
        assert (read == whole).all()


@given(st.data())
@settings(max_examples=200)
def test_a_changed_byte_in_a_header_is_judged_alike(data):
    whole = encoded(photo(7, (60, 50)), quality=90)
    at = data.draw(st.integers(0, whole.index(b"\xff\xda") + 13))
    damaged = bytearray(whole)
    damaged[at] ^= data.draw(st.integers(1, 255))
    with suppress(UnreadableImage):
        pixels(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>404 Not Found</html>", "not an image"),
        (bytes(1000), "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (b"\xff\xd8\xff\xe0 no more than a beginning", "."),
        (png(1, 1, 16, 0, b"\x80\x00", b"tRNS\x80\x00"), "16-bit"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "pixel format F"),
        (png(60_000, 60_000, 8, 0, b"\0"), "pixels"),  # 3.6 thousand million
        (png(10_000, 10_000, 8, 0, b"\0" * 10_000), "pixels"),  # between Pillow's two limits
    ],
)
def test_what_has_no_sure_meaning_is_refused(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        pixels(data)


def test_a_jpeg_of_too_many_pixels_is_not_decoded(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="1,920 pixels, more than 1,000"):
        pixels(encoded(photo(1)))


def test_running_out_of_memory_is_not_a_bad_image(monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", exhausted)
    with pytest.raises(MemoryError):
        pixels(b"data")


def test_original_photographs_are_all_read(shared_data):
    with zipfile.ZipFile(shared_data / "imagenet-300.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG")]
        assert len(names) == 300
        for name in names[::5]:
            pixels(archive.read(name))
