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

_MAX_FILE_BYTES = 1 << 24  # of the list or the kit, which has a few MB
_MAX_KIT_BYTES = 1 << 26  # unpacked
# The real members have 0.1 and 0.2 MB. meta.mat is compressed, so its size limits memory too.
_MAX_BYTES = 1 << 20


def read_val_classes(source: Path) -> tuple[list[str], str]:
    """The class of every validation image, in the order of their numbers, and the file's name."""
    for name in (LIST, f"{DEVKIT}.tar.gz"):
        path = source / name
        if not path.exists():
            continue
        try:
            content = read_bytes(path, _MAX_FILE_BYTES)
            classes = (
                content.decode("utf-8", "replace").split() if name == LIST else _of_kit(content)
            )
            if not classes or not all(map(is_class, classes)):
                raise ValueError("not a list of classes")
            return classes, name
        except (*UNREADABLE_TAR, EOFError, zlib.error) as error:
            raise UserError(
                f"source: {path} cannot be read ({first_line(error)}); download it again"
            ) from error
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
                if member.size > _MAX_BYTES:
                    raise ValueError(f"{member.name!r} has more than {_MAX_BYTES:,} bytes")
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
