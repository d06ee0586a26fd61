"""The ILSVRC 2012 archives as downloaded, read without unpacking.

One pass over the headers finds where the images lie, also in a tar file inside another. Hostile and
impossible members are refused by name.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from bn_inception.data.source import PlacedImages, class_order, is_image
from bn_inception.errors import UserError
from bn_inception.files import first_line

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"

MAX_IMAGE_BYTES = 1 << 26  # four times ImageNet's largest file, and a bound on memory
MAX_NAME_BYTES = 255  # a hostile archive may have a million names of a megabyte each
# An extended header of an honest archive has no more than a name or two.
_MAX_HEADER_BYTES = 1 << 13
# Raised by tarfile for senseless headers (numbers out of range, chains of thousands of extended
# headers), and by a bad disk.
UNREADABLE_TAR = (tarfile.TarError, ValueError, OverflowError, RecursionError, OSError)

Member = tuple[bytes, int, int]  # file name, offset in the archive, length


def open_train_tar(path: Path) -> PlacedImages:
    """The training archive: a tar file of one tar file a class, named `<wnid>.tar`."""
    found: dict[str, list[Member]] = {}
    with _Headers(path) as file:
        for member in _members(file, path.name, 0, file.bytes):
            name = _plain(member)
            class_name = name[:-4] if name.lower().endswith(".tar") else ""
            images, reason = list[Member](), ""
            if not is_class(class_name):
                reason = "is not the tar file of a class, named such as n01440764.tar"
            elif class_name in found:
                reason = "is there twice"
            else:
                inside = f"{path.name}: {name}"
                images = _images(file, inside, member.offset_data, member.size)
            found[class_name] = images
            if not images:  # skipping it would change the labels of later classes
                reason = reason or "holds no images"
                raise UserError(
                    f"source: {path.name}: {name!r} {reason}; give the original archive"
                )
    return _placed(path, found)


def open_val_tar(path: Path, classes: list[str], labels: str) -> PlacedImages:
    """The validation archive: all images in one folder.

    `classes` has the class of every image, in the order of file names, from the file `labels`.
    """
    with _Headers(path) as file:
        members = _images(file, path.name, 0, file.bytes)
    if len(members) != len(classes):
        raise UserError(
            f"source: {path.name} holds {len(members):,} images, {labels} has "
            f"{len(classes):,} labels; they must belong together"
        )
    found: dict[str, list[Member]] = {}
    # The numbers in the names have leading zeros.
    for class_name, member in zip(classes, sorted(members), strict=True):
        found.setdefault(class_name, []).append(member)
    return _placed(path, found)


def is_class(name: str) -> bool:
    """Whether `name` can be a class: one part of a path, printable, not hidden, not too long."""
    plain = name.isprintable() and "/" not in name and not name.startswith(".") and name != ""
    return plain and len(os.fsencode(name)) <= MAX_NAME_BYTES


def _placed(path: Path, found: dict[str, list[Member]]) -> PlacedImages:
    """Images inside a tar file, by class, in the order of the folder reader."""
    if not found:
        raise UserError(f"source: {path.name} holds no images")
    classes = class_order(found)
    names, places, labels = list[bytes](), list[tuple[int, int]](), list[int]()
    for label, class_name in enumerate(classes):
        for name, offset, length in sorted(found[class_name]):
            names.append(os.fsencode(class_name) + b"/" + name)
            places.append((offset, length))
            labels.append(label)
    for name, following in pairwise(names):
        if name == following:
            raise UserError(
                f"source: {path.name} holds {os.fsdecode(name)} twice; it is no original"
            )
    offsets, lengths = np.array(places, np.int64).T
    where = np.zeros_like(offsets), offsets, lengths
    return PlacedImages(classes, np.array(labels, np.int64), names, [str(path)], where)


class _Headers(io.FileIO):
    """An archive of which only headers are read."""

    def __init__(self, path: Path) -> None:
        try:
            if path.exists() and not path.is_file():  # opening a pipe would wait forever
                raise UserError(f"source: {path} is not a regular file")
            super().__init__(path)
        except OSError as error:
            raise UserError(f"source: {path}: {first_line(error)}") from error
        self.bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read a block; refuse a hostile extended header that claims to be huge."""
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size) or b""


def _images(file: _Headers, what: str, start: int, size: int) -> list[Member]:
    """The images in a tar file, or in one inside it."""
    members = _members(file, what, start, size, MAX_IMAGE_BYTES)
    found = ((_plain(member), member.offset_data, member.size) for member in members)
    return [(os.fsencode(name), at, length) for name, at, length in found if is_image(name)]


def _plain(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _members(
    file: _Headers, what: str, start: int, size: int, limit: int | None = None
) -> Iterator[tarfile.TarInfo]:
    """Every file of up to `limit` bytes in the tar at `start`, named `what`; others are refused."""
    end = start + size
    file.seek(start)
    try:
        tar = tarfile.TarFile(fileobj=file)
        while (member := tar.next()) is not None and member.offset < end:
            # tarfile would keep every member in this list, which its type stubs lack.
            tar.members = []  # type: ignore[attr-defined]
            if member.isdir() and _plain(member) in ("", "."):
                continue
            reason = _refusal(member, end, limit)
            if reason:
                raise UserError(
                    f"source: {what}: member {member.name[:MAX_NAME_BYTES]!r} {reason}; refused, "
                    "give the original archive"
                )
            yield member
        # tarfile takes a damaged header, or the end of the file, for the end of the archive; a
        # real end is marked by zeros.
        at = tar.offset if member is None else member.offset
        file.seek(at)
        if at + tarfile.BLOCKSIZE <= end and not any(file.read(tarfile.BLOCKSIZE)):
            return
        reason = f"no header and no end at byte {at - start:,}"
    except UserError:
        raise
    except UNREADABLE_TAR as error:
        reason = first_line(error)
    raise UserError(
        f"source: {what} is not an uncompressed tar file, or is damaged ({reason}); download it "
        "again"
    )


def _refusal(member: tarfile.TarInfo, end: int, limit: int | None) -> str:
    name = _plain(member)
    if not member.isreg() or member.issparse():
        return "is not a plain file"  # but a link, a folder, a device or a sparse file
    if name in ("", "..") or "/" in name or not name.isprintable():
        return "does not have the name of a plain file"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    # A negative size would make the reader go back, forever.
    if member.size < 0 or (limit is not None and member.size > limit):
        return f"has {member.size:,} bytes, not 0 to {limit or end:,}"
    if member.offset_data + member.size > end:
        return "reaches over the end of the archive, which is cut off"
    return ""
