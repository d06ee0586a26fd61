"""The parquet files of imagenet-1k, unpacked into class folders.

Parquet does not allow random access: reading a value reads its whole row group.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bn_inception.data.intake.archives import MAX_IMAGE_BYTES, MAX_NAME_BYTES
from bn_inception.data.intake.marked import writing
from bn_inception.data.parallel import Progress, produced
from bn_inception.data.source import is_image
from bn_inception.errors import UserError
from bn_inception.files import first_line, replacing

_ROWS = 2  # read at once: limits memory, with MAX_IMAGE_BYTES; more are not faster
# Encoded images hardly compress; a file that unpacks to more times its size is hostile.
_MAX_EXPANSION = 20
_FOOTER_BYTES = 1 << 16  # of a parquet file; imagenet-1k's have some thousand bytes

# "n01440764_10026_n01440764.JPEG": imagenet-1k appends the class to the original name.
_NAME_WITH_CLASS = re.compile(r"(?P<stem>.+)_(?P<wnid>n\d{8})(?P<suffix>\.\w+)")


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of imagenet-1k by split: "train" and "val" (theirs is "validation").

    They are in `folder` or its `data/`. The test images, which have no labels, are left out.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        for split in ("train", "val"):
            if path.name.startswith(split):
                found.setdefault(split, []).append(path)
    return found


def unpacked_bytes(path: Path) -> int:
    """Bytes of a parquet file's unpacked images, according to its header.

    Raises:
        UserError: pyarrow is missing; the file cannot be read, or claims an impossible size.
    """
    total = 0
    with _parquet(path) as file:
        for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            size = sum(
                c.total_uncompressed_size for c in columns if c.path_in_schema == "image.bytes"
            )
            if size > group.num_rows * (MAX_IMAGE_BYTES + _FOOTER_BYTES):
                raise UserError(
                    f"source: {path}: {group.num_rows:,} images take {size:,} bytes, more than "
                    f"{MAX_IMAGE_BYTES:,} each; refused"
                )
            total += size
    _check_expansion(path, total)
    return max(total, path.stat().st_size)


def unpack(files: dict[str, list[Path]], spool: Path, workers: int, progress: Progress) -> None:
    """Write the images of every split to `spool/<split>/<class>/<name>`.

    A file `.<split>.<file>.done` beside the split's folder marks every parquet file that has been
    unpacked completely, so that it is not unpacked again. The files have the columns `image`
    (bytes, path) and `label`.

    Raises:
        UserError: a file cannot be read or has other contents; two images of one name; no room.
    """
    for split, paths in files.items():
        folder, images = spool / split, 0
        if len({path.name for path in paths}) != len(paths):
            raise UserError(
                f"source: {paths[0].parent}: a parquet file lies there twice, in data/ and beside "
                "it; remove one of them"
            )
        with writing(folder):
            folder.mkdir(exist_ok=True)
        progress("parquet files", 0, len(paths))
        for done, rows in enumerate(produced(partial(_unpack, folder), paths, workers), 1):
            images += rows
            progress("parquet files", done, len(paths))
        found = sum(len(os.listdir(entry)) for entry in folder.iterdir())
        if found != images:
            raise UserError(
                f"source: {paths[0].parent}: of {images:,} {split} images {found:,} have names of "
                "their own in their class; give the files as downloaded"
            )


def _unpack(folder: Path, path: Path) -> int:
    """Unpack one file, unless that is done; return its number of images."""
    done, identity = folder.parent / f".{folder.name}.{path.name}.done", _identity(path)
    if done.exists():
        known, _, count = done.read_text().partition("\n")
        if known == identity:
            return int(count)
    rows = size = 0
    for class_name, name, data in _rows(path):
        target = folder / class_name / name
        with writing(target):
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
        rows, size = rows + 1, size + len(data)
        _check_expansion(path, size)
    if _identity(path) != identity:
        raise UserError(f"source: {path} changed while it was read; call again")
    os.sync()  # one call instead of an fsync for each image
    with writing(done), replacing(done) as file:
        file.write(f"{identity}\n{rows}".encode())
    return rows


def _identity(path: Path) -> str:
    """A value that changes when the file changes."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _check_expansion(path: Path, size: int) -> None:
    """Refuse a small file that claims images too large for memory and disk."""
    packed = path.stat().st_size
    if size > max(MAX_IMAGE_BYTES, _MAX_EXPANSION * packed):
        raise UserError(
            f"source: {path} has {packed:,} bytes and unpacks to {size:,} or more, which images do "
            "not; refused, give the files as downloaded"
        )


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """Open a parquet file; errors of pyarrow become one line."""
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
    with _parquet(path) as file:
        batches = file.iter_batches(_ROWS, columns=["image", "label"])
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            yield _row(row["image"], row["label"], path, number)


def _row(image: Any, label: Any, path: Path, number: int) -> tuple[str, str, bytes]:
    data = image.get("bytes") if isinstance(image, dict) else None
    name = ""
    if not isinstance(data, bytes):
        fault = "has no image bytes"
    elif not isinstance(label, int) or label < 0:
        fault = f"has label {label!r}, which training and validation images do not"
    elif len(data) > MAX_IMAGE_BYTES:
        fault = f"has {len(data):,} bytes, more than {MAX_IMAGE_BYTES:,}"
    else:
        name = os.path.basename(str(image.get("path") or f"{path.stem}-{number:08d}.jpg"))
        fault = f"is called {name[:MAX_NAME_BYTES]!r}, which is no name of an image's file"
        if is_image(name) and name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES:
            match = _NAME_WITH_CLASS.fullmatch(name)
            if match:
                return match["wnid"], f"{match['stem']}{match['suffix']}", data
            return str(label), name, data
    raise UserError(f"source: {path}: row {number} {fault}; give the files as downloaded")
