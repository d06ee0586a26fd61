"""Reading a JPEG's layout, and cutting its stream so that little more than a crop is decoded.

A JPEG is decoded from top left to bottom right, and most of the work is Huffman decoding. Two edits
of the stream (ITU-T T.81) skip what a crop does not need, without changing any pixel that it needs:

- The height in the frame header is lowered, so that decoding stops below the crop. This works for
  every sequential JPEG.
- With restart markers (`bn-inception prepare` writes them) the coded data consist of independent
  segments. Those beside, above and below the crop are left out.

This module decodes nothing. For anything but a plain 8-bit JPEG it returns None, and Pillow reads
the image.
"""

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Jpeg:
    """Where things are in a plain JPEG."""

    width: int  # in pixels
    height: int  # in pixels
    unit: tuple[int, int]  # width and height in pixels of an MCU, the unit in which a scan is coded
    restart: int  # MCUs between restart markers; 0 for none
    sequential: bool  # baseline or extended, all components in one scan
    size_at: int  # offset of the height (two bytes), which the width follows
    scan_at: int  # offset of the coded data


@dataclass(frozen=True, slots=True)
class Part:
    """A JPEG stream that holds a rectangle of an image."""

    stream: bytes | bytearray  # to be decoded
    left: int  # where its left edge lies in the image
    top: int  # likewise its top
    # whether an undamaged stream is decoded without a complaint; with a lowered height the
    # decoder complains about the remaining data
    intact: bool


def parse(data: bytes) -> Jpeg | None:
    """Read the headers of a plain JPEG, in a few microseconds (with EXIF data sixty).

    Plain means: 8 bits, grey or YCbCr as in JFIF with usual chroma subsampling, Huffman-coded,
    upright (no EXIF or XMP orientation other than 1), one picture, ended by its end marker.

    Returns:
        None for anything else, including damaged headers.
    """
    if not (data.startswith(_START) and data.endswith(_END)):
        return None
    at, last, restart = 2, len(data) - 4, 0
    frame: tuple[int, int] | None = None  # offset, marker
    exif = False
    while True:
        if at > last or data[at] != 0xFF:
            return None
        marker, end = data[at + 1], at + 2 + _number(data, at + 2)
        if end > last or end < at + 4:
            return None
        if marker == _SCAN:
            break
        if marker in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            if frame is not None:
                return None
            frame = at, marker
        elif marker not in _HARMLESS or not _plain(marker, data, at + 4, end):
            return None
        elif marker == _EXIF:
            exif = True
        elif marker == _RESTART_INTERVAL:
            restart = _number(data, at + 4)
        at = end
    if frame is None:
        return None
    start, kind = frame
    unit = _unit(data[start + 4 : start + 2 + _number(data, start + 2)])
    height, width = _number(data, start + 5), _number(data, start + 7)
    # One in thirty of ImageNet's photographs has EXIF or XMP, which Pillow reads.
    if unit is None or not width or not height or (exif and not is_upright(data)):
        return None
    sequential = kind != _PROGRESSIVE and data[at + 4] == data[start + 9]
    return Jpeg(width, height, unit, restart, sequential, start + 5, end)


def part(data: bytes, jpeg: Jpeg, box: tuple[int, int, int, int]) -> Part:
    """The smallest stream that this module can make from an image's to decode a box of it.

    The box is (left, top, right, bottom) in whole pixels, inside the image.
    """
    if jpeg.sequential and jpeg.restart:
        found = _segments(data, jpeg, box)
        if found is not None:
            return found
    height = box[3] + _CONTEXT
    # Saving less than a row of MCUs is not worth losing the complaint, which also reports damage.
    if jpeg.sequential and height + jpeg.unit[1] < jpeg.height:
        at = jpeg.size_at
        stream = b"".join((data[:at], height.to_bytes(2, "big"), data[at + 2 :]))
        return Part(stream, 0, 0, False)
    return Part(data, 0, 0, True)


def _segments(data: bytes, jpeg: Jpeg, box: tuple[int, int, int, int]) -> Part | None:
    """The restart segments around a box as a separate image; None if that is impossible."""
    left, top, right, bottom = box
    unit_x, unit_y = jpeg.unit
    units = -(-jpeg.width // unit_x)
    columns, rest = divmod(units, jpeg.restart)  # segments in a row of MCUs
    if rest:
        return None
    rows = -(-jpeg.height // unit_y)
    step = jpeg.restart * unit_x
    row, column = max(0, top - _CONTEXT) // unit_y, max(0, left - _CONTEXT) // step
    last_row = min(rows, -(-(bottom + _CONTEXT) // unit_y))
    last_column = min(columns, -(-(right + _CONTEXT) // step))
    if (last_row - row) * (last_column - column) == rows * columns:
        return None

    # Where each segment's end marker begins; the first entry is for the marker that it lacks.
    coded = np.frombuffer(data, np.uint8, offset=jpeg.scan_at)
    marks = np.flatnonzero((coded[:-2] == 0xFF) & (coded[1:-1] != 0))  # a coded 255 precedes 0
    if len(marks) != rows * columns - 1:
        return None  # damaged
    ends = np.empty(rows * columns + 1, np.int64)
    ends[0], ends[1:-1], ends[-1] = -2, marks, len(coded) - 2
    wanted = ends[1:].reshape(rows, columns)[row:last_row, column:last_column]
    starts = ends[row * columns + column : last_row * columns : columns] + 2

    width = min(jpeg.width, last_column * step) - column * step
    height = min(jpeg.height, last_row * unit_y) - row * unit_y
    at, scan_at = jpeg.size_at, jpeg.scan_at
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    pieces = [data[:at], size, data[at + 4 : scan_at]]
    shifts, length = [], scan_at
    for first, last in zip(starts.tolist(), wanted[:, -1].tolist(), strict=True):
        pieces.append(data[scan_at + first : scan_at + last + 2])
        shifts.append(length - first + 1)
        length += last + 2 - first
    stream = bytearray().join(pieces)
    # Markers are numbered 0 to 7 cyclically; the last one is the end marker.
    places = (wanted + np.array(shifts)[:, None]).ravel()
    np.frombuffer(stream, np.uint8)[places] = 0xD0 + np.arange(len(places)) % 8
    stream[-1] = _END[1]
    return Part(stream, column * step, row * unit_y, True)


def _number(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _unit(frame: bytes) -> tuple[int, int] | None:
    """The size of an MCU from the frame header; None if the frame is not plain."""
    if len(frame) < 6 or frame[0] != 8 or len(frame) != 6 + 3 * frame[5]:
        return None
    if frame[5] == 1:
        return 8, 8  # a scan of one component is coded block by block, whatever its sampling
    if frame[5] != 3 or (frame[6], frame[9], frame[12]) != (1, 2, 3):
        return None
    across, down = frame[7] >> 4, frame[7] & 15
    if across not in (1, 2) or down not in (1, 2) or frame[10] != 0x11 or frame[13] != 0x11:
        return None
    return 8 * across, 8 * down


def _plain(marker: int, data: bytes, start: int, end: int) -> bool:
    """Whether a segment, `data[start:end]`, does not affect pixels and their order."""
    if marker == _RESTART_INTERVAL:
        return end - start == 2
    if marker == _MULTI_PICTURE:
        return not data.startswith(b"MPF\0", start, end)
    if marker == _ADOBE and data.startswith(b"Adobe", start, end):
        return end - start >= 12 and data[start + 11] == _YCBCR
    return True
