"""The classes of ImageNet's validation images, from its development kit or a list."""

import gzip
import io
import tarfile
import zlib
from pathlib import Path

from bn_inception.data.intake.archives import UNREADABLE_TAR, VAL_TAR, is_class
from bn_inception.errors import UserError
from bn_inception.files import first_line, read_bytes

DEVKIT = "ILSVRC2012_devkit_t12"
LIST = "val_classes.txt"

# The real files have 0.1 and 0.2 MB. meta.mat is compressed, so its size limits memory too.
_MAX_BYTES = 1 << 20
_MAX_DEVKIT_BYTES = 1 << 26  # unpacked; the real one has a few MB
_MAX_LIST_BYTES = 1 << 24


def read_val_classes(source: Path) -> tuple[list[str], str]:
    """The class of every validation image, in the order of their numbers, and its file's name.

    Raises:
        UserError: `source` has no such file, or it is damaged; SciPy is needed and missing.
    """
    for name in (LIST, f"{DEVKIT}.tar.gz", DEVKIT):
        path = source / name
        if not path.exists():
            continue
        try:
            return _list(path) if name == LIST else _told_by_kit(path), name
        except (*UNREADABLE_TAR, EOFError, zlib.error) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"source: {path} cannot be read ({first_line(error)}); download it again"
            ) from error
    raise UserError(
        f"source: {source} has {VAL_TAR} but nothing that tells its classes; put {DEVKIT}.tar.gz "
        f"beside it, or {LIST} with the class of each image on a line"
    )


def _list(path: Path) -> list[str]:
    lines = read_bytes(path, _MAX_LIST_BYTES).decode("utf-8", "replace").split()
    if not lines or not all(map(is_class, lines)):
        raise UserError(f"source: {path} is not a list of classes, one a line")
    return lines


def _told_by_kit(kit: Path) -> list[str]:
    truth = _file(kit, "ILSVRC2012_validation_ground_truth.txt")
    wnids = _wnids(_file(kit, "meta.mat"), kit)
    try:
        return [wnids[int(line)] for line in truth.split()]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"source: {kit}: the ground truth names class {error}, which meta.mat does not have"
        ) from error


def _file(kit: Path, name: str) -> bytes:
    """One of the two files in the development kit's folder `data/`."""
    if kit.is_dir():
        return read_bytes(kit / "data" / name, _MAX_BYTES)
    with gzip.open(io.BytesIO(read_bytes(kit, _MAX_DEVKIT_BYTES))) as stream:
        unpacked = stream.read(_MAX_DEVKIT_BYTES + 1)
    if len(unpacked) > _MAX_DEVKIT_BYTES:
        raise ValueError(f"it unpacks to more than {_MAX_DEVKIT_BYTES:,} bytes")
    with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
        for member in tar:
            if not 0 <= member.size <= _MAX_DEVKIT_BYTES:  # would make tarfile go back, forever
                raise ValueError(f"{member.name!r} has {member.size:,} bytes")
            if member.isreg() and member.name.split("/")[-2:] == ["data", name]:
                if member.size > _MAX_BYTES:
                    raise ValueError(f"{member.name!r} has more than {_MAX_BYTES:,} bytes")
                content = tar.extractfile(member)
                assert content is not None
                return content.read()
    raise UserError(f"source: {kit} has no data/{name}; give the original file")


def _wnids(meta: bytes, kit: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID of the leaf classes, 1 to 1000."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(
            f"source: {kit}: reading meta.mat needs SciPy; pip install 'bn-inception[devkit]', or "
            f"put a file {LIST} beside the archives, with the wnid of each validation image on a "
            "line"
        ) from None
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        rows = zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True)
        wnids = {int(number): str(wnid) for number, wnid in rows}
        if not all(map(is_class, wnids.values())):
            raise ValueError("a wnid that is none")
        return wnids
    except Exception as error:  # SciPy may raise anything for a damaged file
        raise UserError(f"source: {kit}: meta.mat cannot be read ({first_line(error)})") from error
