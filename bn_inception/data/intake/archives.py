"""The ILSVRC 2012 archives as they are downloaded, read where they lie.

Nothing is unpacked: members of an uncompressed tar, also of a tar inside a tar, are addressed by
their offsets, which one pass over the headers finds.
"""

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from bn_inception.data.parallel import Progress
from bn_inception.data.shards import FileReader, PlacedImages
from bn_inception.data.source import PackedNames, class_order, is_image
from bn_inception.errors import UserError
from bn_inception.files import first_line

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"

MAX_IMAGE_BYTES = 1 << 26
"""Larger members are refused: four times ImageNet's largest file, and a bound on memory."""

MAX_NAME_BYTES = 255
"""What a file system allows a name; a hostile archive's may be a megabyte, a million times."""

# The longest extended header that an honest archive needs has a name or two.
_MAX_HEADER_BYTES = 1 << 13
# What tarfile raises at headers that make no sense (numbers out of all range, a chain of thousands
# of extended headers), and what a bad disk raises.
UNREADABLE_TAR = (tarfile.TarError, ValueError, OverflowError, RecursionError, OSError)

Member = tuple[bytes, int, int]
"""File name, where its bytes begin in the archive, and how many there are."""


class ArchiveSource(PlacedImages):
    """Images inside a tar file, given by class; an `ImageSource` in the order of the folder reader.

    Raises:
        UserError: no images; two of one name in a class.
    """

    def __init__(self, path: Path, found: dict[str, list[Member]]) -> None:
        if not found:
            raise UserError(f"source: {path.name} holds no images")
        classes = class_order(found)
        members = [member for name in classes for member in sorted(found[name])]
        labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes])
        names = PackedNames(
            os.fsencode(classes[label]) + b"/" + name
            for label, (name, _, _) in zip(labels.tolist(), members, strict=True)
        )
        previous = None
        for name in names:
            if name == previous:
                raise UserError(
                    f"source: {path.name} holds {os.fsdecode(name)} twice; it is no original"
                )
            previous = name
        offsets, lengths = (np.array([m[column] for m in members], np.int64) for column in (1, 2))
        super().__init__(
            FileReader([str(path)]),
            tuple(classes),
            labels,
            names,
            (np.zeros(len(members), np.int32), offsets, lengths),
        )


def open_train_tar(path: Path, progress: Progress) -> ArchiveSource:
    """The training archive: a tar file of one tar file a class, named `<wnid>.tar`.

    Raises:
        UserError: not such an archive; a hostile or impossible member, by name.
    """
    found: dict[str, list[Member]] = {}
    with _opened(path) as whole:
        progress(f"{path.name}: headers, MB", 0, whole.size // 10**6)
        for member, name in _members(whole, path.name):
            class_name, _, suffix = name.rpartition(".")
            if suffix.lower() != "tar" or not class_name:
                raise UserError(
                    f"source: {path.name}: {name!r} is not the tar file of a class, such as "
                    "n01440764.tar; give the original archive"
                )
            if not is_class(class_name):
                raise UserError(
                    f"source: {path.name}: {name!r} is named like no class (hidden, or with "
                    "characters that cannot be printed); refused, give the original archive"
                )
            if class_name in found:
                raise UserError(f"source: {path.name} holds {name} twice; it is no original")
            inside = whole.part(member.offset_data, member.size)
            found[class_name] = _images(inside, f"{path.name}: {name}")
            if not found[class_name]:
                # Left out, it would give all later classes other labels.
                raise UserError(
                    f"source: {path.name}: {name} holds no images; give the original archive"
                )
            passed = member.offset_data + member.size
            progress(f"{path.name}: headers, MB", passed // 10**6, whole.size // 10**6)
    return ArchiveSource(path, found)


def open_val_tar(path: Path, classes: list[str], labels: str) -> ArchiveSource:
    """The validation archive: images beside each other; their classes are told elsewhere.

    `classes` holds that of every image in the order of the files' numbers, from the file `labels`.

    Raises:
        UserError: not such an archive; a hostile member; another number of labels.
    """
    with _opened(path) as whole:
        members = _images(whole, path.name)
    if len(members) != len(classes):
        raise UserError(
            f"source: {path.name} holds {len(members):,} images, {labels} has "
            f"{len(classes):,} labels; they must belong together"
        )
    found: dict[str, list[Member]] = {}
    # The numbers in the names have leading zeros.
    for class_name, member in zip(classes, sorted(members), strict=True):
        found.setdefault(class_name, []).append(member)
    return ArchiveSource(path, found)


def is_class(name: str) -> bool:
    """Whether a class may be called so: its name becomes a folder's, and is printed."""
    plain = name.isprintable() and "/" not in name and not name.startswith(".") and name != ""
    return plain and len(os.fsencode(name)) <= MAX_NAME_BYTES


def _images(window: "_Window", what: str) -> list[Member]:
    """The images that lie beside each other in a tar file."""
    return [
        (os.fsencode(name), window.start + member.offset_data, member.size)
        for member, name in _members(window, what, MAX_IMAGE_BYTES)
        if is_image(name)
    ]


@contextmanager
def _opened(path: Path) -> Iterator["_Window"]:
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        if path.exists() and not path.is_file():
            raise UserError(f"source: {path} is not a regular file")
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"source: {path}: {first_line(error)}") from error
    with file:
        yield _Window(file, 0, os.fstat(file.fileno()).st_size)


def _members(
    window: "_Window", what: str, limit: int | None = None
) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Every file in a tar with its plain name; what no original archive holds is refused.

    `what` names the archive in messages; no member may have more than `limit` bytes.
    """
    try:
        tar = tarfile.TarFile(fileobj=cast(IO[bytes], window))
    except UNREADABLE_TAR as error:
        raise UserError(
            f"source: {what} is not an uncompressed tar file ({first_line(error)}); give the "
            "original archive"
        ) from error
    while True:
        try:
            member = tar.next()
        except UNREADABLE_TAR as error:
            raise UserError(
                f"source: {what} is damaged ({first_line(error)}); download it again"
            ) from error
        if member is None:
            break
        # tarfile keeps every member it has seen; its types do not know the list.
        tar.members = []  # type: ignore[attr-defined]
        name = member.name.removeprefix("./")
        if member.isdir() and name in ("", "."):
            continue
        reason = _refusal(member, name, window.size, limit)
        if reason:
            raise UserError(
                f"source: {what}: member {member.name[:MAX_NAME_BYTES]!r} {reason}; refused, give "
                "the original archive"
            )
        yield member, name
    # tarfile takes a damaged header, or the end of the file, for the end of the archive; the real
    # one is marked by zeros.
    window.seek(tar.offset)
    end = window.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise UserError(
            f"source: {what} ends early or is damaged at byte {tar.offset:,}; download it again"
        )


def _refusal(member: tarfile.TarInfo, name: str, size: int, limit: int | None) -> str:
    if member.issym() or member.islnk():
        return f"is a link to {member.linkname[:MAX_NAME_BYTES]!r}"
    if not member.isreg():
        return "is neither a file nor a folder" if not member.isdir() else "is a folder"
    if member.issparse():
        return "is a sparse file"
    if member.size < 0:  # would lead the reader backwards, for ever
        return f"has {member.size:,} bytes"
    if name.startswith("/"):
        return "has an absolute path"
    if not name.isprintable():
        return "has characters in its name that cannot be printed"
    if ".." in name.split("/"):
        return "leads out of its folder"
    if "/" in name or not name:
        return "lies in a folder"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    if limit is not None and member.size > limit:
        return f"has {member.size:,} bytes, more than {limit:,}"
    if member.offset_data + member.size > size:
        return "reaches over the end of the archive, which is cut off"
    return ""


class _Window:
    """Part of a file as a file of its own: a tar inside a tar."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.start, self.size = start, size
        self._file = file
        self._position = 0

    def part(self, start: int, size: int) -> "_Window":
        return _Window(self._file, self.start + start, size)

    def seek(self, position: int) -> None:
        self._position = position

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        # tarfile reads headers only: 512 bytes, unless a hostile extended header claims to be huge.
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        size = min(size, max(0, self.size - self._position))
        data = os.pread(self._file.fileno(), size, self.start + self._position)
        self._position += len(data)
        return data

    def close(self) -> None:
        pass
