"""The ILSVRC 2012 archives as downloaded, read without unpacking.

One pass over the headers finds where the images lie, also in a tar file inside another. The classes
of the validation images stand in the development kit, or in a list. Hostile members are refused.
"""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from bn_inception.data.source import PlacedImages, class_order, is_image
from bn_inception.errors import UserError
from bn_inception.files import first_line, read_bytes, refusing

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
LIST = "val_classes.txt"

MAX_IMAGE_BYTES = 1 << 26  # four times ImageNet's largest file, and a bound on memory
MAX_NAME_BYTES = 255  # a hostile archive may have a million names of a megabyte each
# An extended header of an honest archive has no more than a name or two.
_MAX_HEADER_BYTES = 1 << 13
_MAX_LABELS_BYTES = 1 << 24  # of the list or the kit, which has a few MB
_MAX_KIT_BYTES = 1 << 26  # unpacked
# Its two files have 0.1 and 0.2 MB. meta.mat is compressed, so its size limits memory too.
_MAX_KIT_FILE_BYTES = 1 << 20
# Raised by tarfile for senseless headers (numbers out of range, chains of thousands of extended
# headers), and by a bad disk.
_UNREADABLE = (tarfile.TarError, ValueError, OverflowError, RecursionError, OSError)

Member = tuple[bytes, int, int]  # file name, offset in the archive, length


def open_train_tar(path: Path) -> PlacedImages:
    """The training archive: a tar file of one tar file a class, named `<wnid>.tar`."""
    found: dict[str, list[Member]] = {}
    with _Headers(path) as file:
        for member in _members(file, path.name, 0, file.bytes):
            name, images = member.name, list[Member]()
            class_name = name[:-4] if name.lower().endswith(".tar") else ""
            if not is_class(class_name):
                reason = "is not the tar file of a class, named such as n01440764.tar"
            elif class_name in found:
                reason = "is there twice"
            else:
                inside = f"{path.name}: {name}"
                images = _images(file, inside, member.offset_data, member.size)
                reason = "holds no images"  # skipping it would change the labels of later classes
            if not images:
                raise UserError(
                    f"source: {path.name}: {name!r} {reason}; give the original archive"
                )
            found[class_name] = images
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
    members = [(label, *member) for label, c in enumerate(classes) for member in sorted(found[c])]
    for (label, name, *_), following in pairwise(members):
        if (label, name) == following[:2]:
            raise UserError(
                f"source: {path.name} holds {classes[label]}/{os.fsdecode(name)} twice; it is no "
                "original"
            )
    names = [os.fsencode(f"{classes[label]}/") + name for label, name, *_ in members]
    labels, offsets, lengths = np.array([(m[0], *m[2:]) for m in members], np.int64).T
    where = np.zeros_like(offsets), offsets, lengths
    return PlacedImages(classes, labels.copy(), names, [str(path)], where)


class _Headers(io.FileIO):
    """An archive of which only headers are read."""

    def __init__(self, path: Path) -> None:
        with refusing(f"source: {path} cannot be read", "give the archive as downloaded"):
            if path.exists() and not path.is_file():  # opening a pipe would wait forever
                raise OSError("not a regular file")
            super().__init__(path)
        self.bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read a block; refuse a hostile extended header that claims to be huge."""
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size) or b""


def _images(file: _Headers, what: str, start: int, size: int) -> list[Member]:
    """The images in a tar file, or in one inside it."""
    members = _members(file, what, start, size, MAX_IMAGE_BYTES)
    return [(os.fsencode(m.name), m.offset_data, m.size) for m in members if is_image(m.name)]


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
            member.name = member.name.removeprefix("./")
            if member.isdir() and member.name in ("", "."):
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
    except _UNREADABLE as error:
        reason = first_line(error)
    raise UserError(
        f"source: {what} is not an uncompressed tar file, or is damaged ({reason}); download it "
        "again"
    )


def _refusal(member: tarfile.TarInfo, end: int, limit: int | None) -> str:
    name = member.name
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


def read_val_classes(source: Path) -> tuple[list[str], str]:
    """The class of every validation image, in the order of their numbers, and the file's name."""
    for name in (LIST, f"{DEVKIT}.tar.gz"):
        path = source / name
        if not path.exists():
            continue
        faults = (*_UNREADABLE, EOFError, zlib.error)
        with refusing(f"source: {path} cannot be read", "download it again", *faults):
            content = read_bytes(path, _MAX_LABELS_BYTES)
            classes = (
                content.decode("utf-8", "replace").split() if name == LIST else _of_kit(content)
            )
            if not classes or not all(map(is_class, classes)):
                raise ValueError("not a list of classes")
            return classes, name
    raise UserError(
        f"source: {source} has {VAL_TAR} but nothing that tells its classes; put {DEVKIT}.tar.gz "
        f"beside it, or {LIST} with the class of each image on a line"
    )


def _of_kit(kit: bytes) -> list[str]:
    with gzip.open(io.BytesIO(kit)) as stream:
        unpacked = stream.read(_MAX_KIT_BYTES + 1)
    if len(unpacked) > _MAX_KIT_BYTES:
        raise ValueError(f"it unpacks to more than {_MAX_KIT_BYTES:,} bytes")
    truth = _file(unpacked, "ILSVRC2012_validation_ground_truth.txt")
    wnids = _wnids(_file(unpacked, "meta.mat"))
    numbers = [int(line) for line in truth.split()]
    missing = set(numbers) - wnids.keys()
    if missing:
        raise ValueError(f"the ground truth names class {min(missing)}, which meta.mat has not")
    return [wnids[number] for number in numbers]


def _file(kit: bytes, name: str) -> bytes:
    """One of the two files in the development kit's folder `data/`."""
    with tarfile.open(fileobj=io.BytesIO(kit), mode="r:") as tar:
        for member in tar:
            if not 0 <= member.size <= _MAX_KIT_BYTES:  # would make tarfile go back, forever
                raise ValueError(f"{member.name!r} has {member.size:,} bytes")
            if member.isreg() and member.name.split("/")[-2:] == ["data", name]:
                if member.size > _MAX_KIT_FILE_BYTES:
                    raise ValueError(f"{member.name!r} has more than {_MAX_KIT_FILE_BYTES:,} bytes")
                content = tar.extractfile(member)
                assert content is not None
                return content.read()
    raise ValueError(f"it has no data/{name}")


def _wnids(meta: bytes) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID of all classes; the leaves are 1 to 1000."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        rows = zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True)
        return {int(number): str(wnid) for number, wnid in rows}
    except Exception as error:  # SciPy may raise anything for a damaged file
        raise ValueError(f"meta.mat: {first_line(error)}") from error
