"""The parquet files of imagenet-1k, unpacked into class folders.

Parquet cannot be read at random: a value costs its whole row group.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bn_inception.data.intake.archives import MAX_IMAGE_BYTES, MAX_NAME_BYTES
from bn_inception.data.intake.marked import unwritable
from bn_inception.data.parallel import Progress, unordered
from bn_inception.data.source import is_image
from bn_inception.errors import UserError
from bn_inception.files import first_line, replacing

_ROWS = 2  # read at once: bounds memory with MAX_IMAGE_BYTES; more are not faster
# Encoded images hardly shrink; what unpacks to more times a parquet file's size is made to harm.
_MAX_EXPANSION = 20
_BYTES = "image.bytes"  # the column
_FOOTER_BYTES = 1 << 16  # of a parquet file; imagenet-1k's have some thousand bytes

# "n01440764_10026_n01440764.JPEG": imagenet-1k appends the class to the original name.
_NAME_WITH_CLASS = re.compile(r"(?P<stem>.+)_(?P<wnid>n\d{8})(?P<suffix>\.\w+)")


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of imagenet-1k by split: "train" and "val" (theirs is "validation").

    Found in `folder` or its `data/`; the test images, which have no labels, are left out.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        for split in ("train", "val"):
            if path.name.startswith(split):
                found.setdefault(split, []).append(path)
    return found


def unpacked_bytes(path: Path) -> int:
    """What a parquet file's images take unpacked, by its own account.

    Raises:
        UserError: pyarrow is missing; the file cannot be read, or claims what no images take.
    """
    total = 0
    with _parquet(path) as file:
        for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == _BYTES)
            if size > group.num_rows * (MAX_IMAGE_BYTES + _FOOTER_BYTES):
                raise UserError(
                    f"source: {path}: {group.num_rows:,} images take {size:,} bytes, more than "
                    f"{MAX_IMAGE_BYTES:,} each; refused"
                )
            total += size
    _check_expansion(path, total)
    return max(total, path.stat().st_size)


def unpack(paths: Sequence[Path], folder: Path, workers: int | None, progress: Progress) -> int:
    """Write the images of one split to `folder/<class>/<name>`; return their number.

    Beside `folder` lies `.<split>.<file>.done` for every parquet file that has been unpacked whole,
    so that it is not unpacked again. The files have the columns `image` (bytes, path) and `label`.

    Raises:
        UserError: a file cannot be read, or holds something else; no room.
    """
    if len({path.name for path in paths}) != len(paths):
        raise UserError(
            f"source: {paths[0].parent}: a parquet file lies there twice, in data/ and beside it; "
            "remove one of them"
        )
    images = 0
    progress("parquet files", 0, len(paths))
    for done, rows in enumerate(unordered(partial(_unpack, folder), paths, workers), 1):
        images += rows
        progress("parquet files", done, len(paths))
    return images


def _unpack(folder: Path, path: Path) -> int:
    """Unpack one file, unless it is; return its number of images."""
    done, identity = folder.parent / f".{folder.name}.{path.name}.done", _identity(path)
    try:
        known, _, count = done.read_text().partition("\n")
        if known == identity:
            return int(count)
    except (OSError, ValueError):
        pass
    rows = size = 0
    for class_name, name, data in _rows(path):
        target = folder / class_name / name
        try:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise unwritable(target, error) from error
        rows, size = rows + 1, size + len(data)
        _check_expansion(path, size)
    if _identity(path) != identity:
        raise UserError(f"source: {path} changed while it was read; call again")
    os.sync()  # one call, where fsync would take one an image
    try:
        with replacing(done) as file:
            file.write(f"{identity}\n{rows}".encode())
    except OSError as error:
        raise unwritable(done, error) from error
    return rows


def _identity(path: Path) -> str:
    """Tells a parquet file from itself before it was changed: size, time, and SHA-256 of its end.

    There the sizes and places of its columns stand.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        end = os.pread(file.fileno(), _FOOTER_BYTES, max(0, status.st_size - _FOOTER_BYTES))
    return f"{status.st_size} {status.st_mtime_ns} {hashlib.sha256(end).hexdigest()}"


def _check_expansion(path: Path, size: int) -> None:
    """Refuse a small file of large images, which no disk nor memory holds."""
    packed = path.stat().st_size
    if size > max(MAX_IMAGE_BYTES, _MAX_EXPANSION * packed):
        raise UserError(
            f"source: {path} has {packed:,} bytes and unpacks to {size:,} or more, which images do "
            "not; refused, give the files as downloaded"
        )


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """A parquet file; what pyarrow raises at it is said in one line."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"source: {path.name}: reading parquet needs pyarrow; "
            "pip install 'bn-inception[parquet]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:  # also bad UTF-8
        raise UserError(
            f"source: {path} cannot be read as imagenet-1k's parquet ({first_line(error)}); needed "
            "are the columns image (bytes, path) and label; download it again"
        ) from error


def _rows(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Class, file name and bytes of every row of a parquet file."""
    number = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(_ROWS, columns=["image", "label"]):
            for row in batch.to_pylist():
                yield _row(row, path, number)
                number += 1


def _row(row: dict[str, Any], path: Path, number: int) -> tuple[str, str, bytes]:
    image, label = row["image"], row["label"]
    where = f"source: {path}: row {number}"
    if not isinstance(image, dict) or not isinstance(image.get("bytes"), bytes):
        raise UserError(f"{where} has no image bytes; give the files as downloaded")
    if not isinstance(label, int) or label < 0:
        raise UserError(f"{where} has label {label!r}; give training and validation files only")
    data = image["bytes"]
    if len(data) > MAX_IMAGE_BYTES:
        raise UserError(f"{where} has {len(data):,} bytes, more than {MAX_IMAGE_BYTES:,}")
    name = os.path.basename(str(image.get("path") or f"{path.stem}-{number:08d}.jpg"))
    if not (is_image(name) and name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES):
        raise UserError(
            f"{where} is called {name[:MAX_NAME_BYTES]!r}, which is no name of an image's file; "
            "give the files as downloaded"
        )
    match = _NAME_WITH_CLASS.fullmatch(name)
    if match:
        return match["wnid"], f"{match['stem']}{match['suffix']}", data
    return str(label), name, data
