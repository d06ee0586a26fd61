"""Reading a JPEG's layout (ITU-T T.81), and changing its stream so that little is decoded.

A JPEG is decoded from the top to the bottom. If the height in the frame header is lowered, decoding
stops below the crop, without changing any pixel that the crop needs.
"""

from typing import NamedTuple

from bn_inception.data.pixels.decode import is_upright

_START, _END = b"\xff\xd8", b"\xff\xd9"
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD
_EXIF, _MULTI_PICTURE, _ADOBE = 0xE1, 0xE2, 0xEE
# Quantization, Huffman tables, restart interval, comment, application data.
_HARMLESS = {0xDB, 0xC4, _RESTART_INTERVAL, 0xFE, *range(0xE0, 0xF0)}
_YCBCR = 1  # Adobe's number for it

# The interpolated chroma of a pixel needs the neighbouring chroma sample, two pixels away; a cut
# edge is farther than that from the crop.
_CONTEXT = 4
_MCU = 16  # rows of pixels that are coded together, at most


class Jpeg(NamedTuple):
    """Where things are in a plain JPEG."""

    width: int  # in pixels
    height: int  # in pixels
    sequential: bool  # baseline or extended, all components in one scan
    height_at: int  # offset of the height (two bytes), which the width follows


def parse(data: bytes) -> Jpeg | None:
    """Read the headers of a plain JPEG, in a few microseconds (with EXIF data sixty), else None.

    Plain means: 8 bits, grey or YCbCr as in JFIF with usual chroma subsampling, Huffman-coded,
    upright (no EXIF or XMP orientation other than 1), one picture, ended by its end marker.
    """
    if not (data.startswith(_START) and data.endswith(_END)):
        return None
    at, last = 2, len(data) - 4
    frame, header, exif = 0, b"", False
    while True:
        if at > last or data[at] != 0xFF:
            return None
        marker, end = data[at + 1], at + 2 + _number(data, at + 2)
        if end > last or end < at + 4:
            return None
        if marker == _SCAN:
            break
        if marker in (_BASELINE, _EXTENDED, _PROGRESSIVE) and not frame:
            frame, header = at, data[at + 4 : end]
        elif marker not in _HARMLESS or not _is_harmless(marker, data, at + 4, end):
            return None
        exif = exif or marker == _EXIF
        at = end
    # One in thirty of ImageNet's photographs has EXIF or XMP, which Pillow reads.
    if not _is_plain(header) or (exif and not is_upright(data)):
        return None
    height, width = _number(header, 1), _number(header, 3)
    sequential = data[frame + 1] != _PROGRESSIVE and data[at + 4] == header[5]
    return Jpeg(width, height, sequential, frame + 5) if width and height else None


def above(data: bytes, jpeg: Jpeg, bottom: int) -> tuple[bytes, bool]:
    """The stream of an image's rows above `bottom`, or of the whole image if that saves little.

    Also whether an undamaged stream is decoded without a complaint; with a lowered height the
    decoder complains about the remaining data.
    """
    height, at = bottom + _CONTEXT, jpeg.height_at
    # Saving so little is not worth losing the complaint, which also reports damage.
    if not jpeg.sequential or height + _MCU >= jpeg.height:
        return data, True
    return b"".join((data[:at], height.to_bytes(2, "big"), data[at + 2 :])), False


def _number(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _is_plain(frame: bytes) -> bool:
    """Whether a frame header is of 8 bits, and grey or YCbCr with usual subsampling."""
    if len(frame) < 6 or frame[0] != 8 or len(frame) != 6 + 3 * frame[5]:
        return False
    ids, sampling = frame[6::3], frame[7::3]
    usual = sampling[:1] in (b"\x11", b"\x12", b"\x21", b"\x22") and sampling[1:] == b"\x11\x11"
    return frame[5] == 1 or (ids == b"\1\2\3" and usual)


def _is_harmless(marker: int, data: bytes, start: int, end: int) -> bool:
    """Whether a segment, `data[start:end]`, does not affect pixels and their order."""
    if marker == _RESTART_INTERVAL:
        return end - start == 2
    if marker == _MULTI_PICTURE:
        return not data.startswith(b"MPF\0", start, end)
    if marker == _ADOBE and data.startswith(b"Adobe", start, end):
        return end - start >= 12 and data[start + 11] == _YCBCR
    return True
