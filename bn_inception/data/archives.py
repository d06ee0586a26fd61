"""Data sets as they are downloaded: the ILSVRC 2012 archives and the parquet files of imagenet-1k.

Nothing is unpacked: members of an uncompressed tar, also of a tar inside a tar, are addressed by
their offsets, which one pass over the headers finds. Parquet cannot be read at random (a value
costs its whole row group), so its images are first written one after the other into one plain file
for each parquet file.
"""

import gzip
import hashlib
import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bn_inception.data.fingerprint import content_fingerprint
from bn_inception.data.parallel import Progress, unordered
from bn_inception.data.shards import FileReader
from bn_inception.data.source import PackedNames, class_order, is_image
from bn_inception.data.target import make_folder, replace_file, unwritable
from bn_inception.errors import UserError

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"

MAX_IMAGE_BYTES = 1 << 26
"""Larger members are refused: four times ImageNet's largest file, and a bound on memory."""

_MAX_DEVKIT_BYTES = 1 << 26  # unpacked; the real one has a few MB
_MAX_HEADER_BYTES = 1 << 20
# What tarfile raises at headers that make no sense (numbers out of all range, a chain of thousands
# of extended headers), and what a bad disk raises.
_UNREADABLE = (tarfile.TarError, ValueError, OverflowError, RecursionError, OSError)
_PARQUET_ROWS = 2  # read at once: bounds memory with MAX_IMAGE_BYTES; more are not faster
# Encoded images hardly shrink; what unpacks to more times a parquet file's size is made to harm.
_MAX_EXPANSION = 20
_BYTES = "image.bytes"  # the column
_FOOTER_BYTES = 1 << 16  # of a parquet file; imagenet-1k's have some thousand bytes

# "n01440764_10026_n01440764.JPEG": imagenet-1k appends the class to the original name.
_NAME_WITH_CLASS = re.compile(r"(?P<stem>.+)_(?P<wnid>n\d{8})(?P<suffix>\.\w+)")


class Found(NamedTuple):
    """Images in one file, in any order; columns of equal length.

    Attributes:
        file: number of the file.
        classes: class of every image.
        names: its file name, without a folder.
        offset: where its bytes begin.
        length: how many there are.
    """

    file: int
    classes: NDArray[np.str_]
    names: NDArray[np.bytes_]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]


class ArchiveSource:
    """Images inside larger files; an `ImageSource` in the order of the folder reader.

    Args:
        paths: the files.
        found: the images in them.
        where: what is named where something is wrong.

    Raises:
        UserError: no images; two of one name in a class.
    """

    def __init__(self, paths: Sequence[str], found: Sequence[Found], where: str) -> None:
        found = [part for part in found if len(part.names)]
        if not found:
            raise UserError(f"source: {where} holds no images")
        uniques = [np.unique(part.classes, return_inverse=True) for part in found]
        self._classes = tuple(class_order({str(name) for names, _ in uniques for name in names}))
        number = {name: label for label, name in enumerate(self._classes)}
        labels = np.concatenate(
            [
                np.array([number[str(name)] for name in names], np.int64)[inverse]
                for names, inverse in uniques
            ]
        )
        names = np.concatenate([part.names for part in found])
        # The folder reader's order: by label, then by name.
        order = np.lexsort((names, labels))
        labels, names = labels[order], names[order]
        same = np.flatnonzero((labels[1:] == labels[:-1]) & (names[1:] == names[:-1]))
        if len(same):
            name = f"{self._classes[labels[same[0]]]}/{os.fsdecode(bytes(names[same[0]]))}"
            raise UserError(f"source: {where} holds {name} twice; it is no original")
        self._labels = labels
        self._names = PackedNames(
            os.fsencode(self._classes[label]) + b"/" + bytes(name)
            for label, name in zip(labels, names, strict=True)
        )
        files = [np.full(len(part.names), part.file, np.int32) for part in found]
        self._file = np.concatenate(files)[order]
        self._offset = np.concatenate([part.offset for part in found])[order]
        self._length = np.concatenate([part.length for part in found])[order]
        self._reader = FileReader(paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the position is the label."""
        return self._classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of every image, shape (images,)."""
        return self._labels

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every image, shape (images,)."""
        return self._length

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError where they cannot be had."""
        return self._reader.read(
            int(self._file[index]), int(self._offset[index]), int(self._length[index])
        )

    @property
    def names(self) -> PackedNames:
        """Paths of the images below the split's folder, `<class>/<name>`."""
        return self._names

    def name(self, index: int) -> str:
        """The archive's path and the image's name."""
        return f"{self._reader.path(int(self._file[index]))}/{os.fsdecode(self._names[index])}"

    def identity(self, index: int) -> str:
        """The path that the image has below the split's folder when the archive is unpacked."""
        return self._names[index].decode("utf-8", "backslashreplace")

    def fingerprint(self) -> str:
        """See `content_fingerprint`: that of the folder the archive would unpack to."""
        sizes, labels = self._length.tolist(), self._labels.tolist()
        rows = ((self._names[i], sizes[i], labels[i]) for i in range(len(self)))
        return content_fingerprint(self._classes, rows)


def open_train_tar(path: Path, progress: Progress) -> ArchiveSource:
    """The training archive: a tar file of one tar file a class, named `<wnid>.tar`.

    Args:
        path: the archive.
        progress: told how many megabytes of it have been passed over.

    Raises:
        UserError: not such an archive; a hostile or impossible member, by name.
    """
    found: list[Found] = []
    seen: set[str] = set()
    with _opened(path) as file:
        whole = _Window(file, 0, os.fstat(file.fileno()).st_size)
        progress(f"{path.name}: headers, MB", 0, whole.size // 10**6)
        for member, name in _members(whole, path.name):
            class_name, _, suffix = name.rpartition(".")
            if suffix.lower() != "tar" or not class_name:
                raise UserError(
                    f"source: {path.name}: {name!r} is not the tar file of a class, such as "
                    "n01440764.tar; give the original archive"
                )
            if not _is_class(class_name):
                raise UserError(
                    f"source: {path.name}: {name!r} is named like no class (hidden, or with "
                    "characters that cannot be printed); refused, give the original archive"
                )
            inside = _Window(file, member.offset_data, member.size)
            images = _images(inside, f"{path.name}: {name}", class_name)
            if not len(images.names):
                # Left out, it would give all later classes other labels.
                raise UserError(
                    f"source: {path.name}: {name} holds no images; give the original archive"
                )
            if name in seen:
                raise UserError(f"source: {path.name} holds {name} twice; it is no original")
            seen.add(name)
            found.append(images)
            passed = member.offset_data + member.size
            progress(f"{path.name}: headers, MB", passed // 10**6, whole.size // 10**6)
    return ArchiveSource([str(path)], found, path.name)


def _is_class(name: str) -> bool:
    """Whether a class may be called so: its name becomes a folder's, and is printed."""
    return name.isprintable() and "/" not in name and not name.startswith(".") and name != ""


def open_val_tar(path: Path, labels: Path) -> ArchiveSource:
    """The validation archive: images beside each other; their classes are told elsewhere.

    Args:
        path: the archive.
        labels: see `read_val_classes`.

    Raises:
        UserError: not such an archive; a hostile member; another number of labels.
    """
    classes = read_val_classes(labels)
    with _opened(path) as file:
        found = _images(_Window(file, 0, os.fstat(file.fileno()).st_size), path.name, "")
    if len(found.names) != len(classes):
        raise UserError(
            f"source: {path.name} holds {len(found.names):,} images, {labels.name} has "
            f"{len(classes):,} labels; they must belong together"
        )
    # The ground truth is in the order of the files' numbers, which have leading zeros.
    by_number = np.argsort(found.names, kind="stable")
    own = np.empty(len(classes), dtype=np.array(classes).dtype)
    own[by_number] = classes
    return ArchiveSource([str(path)], [found._replace(classes=own)], path.name)


def _images(window: "_Window", what: str, class_name: str) -> Found:
    """The images that lie beside each other in a tar file."""
    names: list[bytes] = []
    offset: list[int] = []
    length: list[int] = []
    for member, name in _members(window, what, MAX_IMAGE_BYTES):
        if is_image(name):
            names.append(os.fsencode(name))
            offset.append(window.start + member.offset_data)
            length.append(member.size)
    return Found(
        0,
        np.full(len(names), class_name),
        np.array(names, dtype=np.bytes_),
        np.array(offset, dtype=np.int64),
        np.array(length, dtype=np.int64),
    )


def read_val_classes(path: Path) -> list[str]:
    """Class of every validation image, in the order of their numbers.

    Args:
        path: the development kit, as `ILSVRC2012_devkit_t12.tar.gz` or unpacked; or a text file
            with the class of one image a line.

    Raises:
        UserError: it is none of these, or is damaged; SciPy is needed and missing.
    """
    if not path.is_file() and not path.is_dir():
        raise UserError(f"source: {path} is neither a file nor a folder")
    if path.is_file() and path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8", errors="replace").split()
        if not lines or not all(map(_is_class, lines)):
            raise UserError(f"source: {path} is not a list of classes, one a line")
        return lines
    truth = _devkit_file(path, "ILSVRC2012_validation_ground_truth.txt")
    wnids = _wnids(_devkit_file(path, "meta.mat"), path)
    try:
        return [wnids[int(line)] for line in truth.split()]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"source: {path}: the ground truth names class {error}, which meta.mat does not have"
        ) from error


def _devkit_file(devkit: Path, name: str) -> bytes:
    """One of the two files in the development kit's folder `data/`."""
    if devkit.is_dir():
        try:
            return (devkit / "data" / name).read_bytes()
        except OSError as error:
            raise UserError(f"source: {devkit}/data/{name}: {error.strerror}") from error
    try:
        with gzip.open(devkit) as stream:
            unpacked = stream.read(_MAX_DEVKIT_BYTES + 1)
        if len(unpacked) > _MAX_DEVKIT_BYTES:
            raise UserError(
                f"source: {devkit} unpacks to more than {_MAX_DEVKIT_BYTES:,} bytes; refused, give "
                "the original file"
            )
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for member in tar:
                if member.size < 0:  # would lead tarfile backwards, for ever
                    raise tarfile.ReadError(f"{member.name!r} has {member.size:,} bytes")
                if member.isreg() and member.name.split("/")[-2:] == ["data", name]:
                    content = tar.extractfile(member)
                    assert content is not None
                    return content.read()
    except (*_UNREADABLE, EOFError, zlib.error) as error:
        raise UserError(f"source: {devkit} cannot be read ({error}); download it again") from error
    raise UserError(f"source: {devkit} has no data/{name}; give the original file")


def _wnids(meta: bytes, devkit: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID of the leaf classes, 1 to 1000."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(
            f"source: {devkit}: reading meta.mat needs SciPy; pip install 'bn-inception[devkit]', "
            "or put a file val_classes.txt beside the archives, with the wnid of each validation "
            "image on a line"
        ) from None
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        rows = zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True)
        wnids = {int(number): str(wnid) for number, wnid in rows}
        if not all(map(_is_class, wnids.values())):
            raise ValueError("a wnid that is none")
        return wnids
    except Exception as error:  # SciPy raises nearly anything at a damaged file
        raise UserError(f"source: {devkit}: meta.mat cannot be read ({error})") from error


def _opened(path: Path) -> IO[bytes]:
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        if path.exists() and not path.is_file():
            raise UserError(f"source: {path} is not a regular file")
        return path.open("rb")
    except OSError as error:
        raise UserError(f"source: {path}: {error.strerror}") from error


def _members(
    window: "_Window", what: str, limit: int | None = None
) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Every file in a tar with its plain name; what no original archive holds is refused.

    Args:
        window: the archive.
        what: its name, for messages.
        limit: bytes a member may have at most.
    """
    try:
        tar = tarfile.TarFile(fileobj=cast(IO[bytes], window))
    except _UNREADABLE as error:
        raise UserError(
            f"source: {what} is not an uncompressed tar file ({error}); give the original archive"
        ) from error
    while True:
        try:
            member = tar.next()
        except _UNREADABLE as error:
            raise UserError(f"source: {what} is damaged ({error}); download it again") from error
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
                f"source: {what}: member {member.name!r} {reason}; refused, give the original "
                "archive"
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
        return f"is a link to {member.linkname!r}"
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


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of imagenet-1k by split: "train" and "val" (theirs is "validation").

    Found in `folder` or its `data/`, in the order of their numbers; the test images, which have no
    labels, are left out.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        for begin, split in (("train", "train"), ("val", "val")):
            if path.name.startswith(begin):
                found.setdefault(split, []).append(path)
    return found


def open_parquet(
    paths: Sequence[Path],
    spool: Path,
    workers: int | None,
    progress: Progress,
) -> ArchiveSource:
    """The images of parquet files, written into plain files first.

    Args:
        paths: the parquet files of one split, with columns `image` (bytes, path) and `label`.
        spool: folder for the plain files; those that are whole are not written again.
        workers: processes; 0 works in this one, None is as many as cores.
        progress: told how many files are done.

    Raises:
        UserError: pyarrow is missing; a file cannot be read or holds something else.
    """
    _require_pyarrow(paths[0])
    stems = [path.stem for path in paths]
    if len(set(stems)) != len(stems):
        raise UserError(
            f"source: {paths[0].parent}: a parquet file lies there twice, in data/ and beside it; "
            "remove one of them"
        )
    make_folder(spool)
    todo = [path for path in paths if not is_unpacked(spool, path)]
    progress("parquet files", 0, len(todo))
    for done, _ in enumerate(unordered(partial(_unpack, spool), todo, workers), 1):
        progress("parquet files", done, len(todo))
    found: list[Found] = []
    for file, path in enumerate(paths):
        with np.load(_spooled(spool, path)[1], allow_pickle=False) as table:
            length = table["length"]
            offset = np.cumsum(length) - length
            found.append(Found(file, table["class_name"], table["name"], offset, length))
    contents = [str(_spooled(spool, path)[0]) for path in paths]
    return ArchiveSource(contents, found, str(paths[0].parent))


def _require_pyarrow(path: Path) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError(
            f"source: {path.name}: reading parquet needs pyarrow; "
            "pip install 'bn-inception[parquet]'"
        ) from None


def unpacked_bytes(path: Path) -> int:
    """What a parquet file's images take unpacked, by its own account.

    Raises:
        UserError: pyarrow is missing; the file cannot be read, or claims what no images take.
    """
    _require_pyarrow(path)
    import pyarrow.parquet

    total = 0
    with _parquet_errors(path), pyarrow.parquet.ParquetFile(path) as file:
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


def _check_expansion(path: Path, size: int) -> None:
    """Refuse a small file of large images, which no disk nor memory holds."""
    packed = path.stat().st_size
    if size > max(MAX_IMAGE_BYTES, _MAX_EXPANSION * packed):
        raise UserError(
            f"source: {path} has {packed:,} bytes and unpacks to {size:,} or more, which images do "
            "not; refused, give the files as downloaded"
        )


def parquet_identity(path: Path) -> str:
    """Tells a parquet file from every other, and from itself before it was changed.

    Its name, size and time of change, and the SHA-256 of its end, where the sizes and places of
    its columns stand: reading all of imagenet-1k takes as long as the checksums of its shards.

    Raises:
        UserError: it cannot be read.
    """
    with _opened(path) as file:
        status = os.fstat(file.fileno())
        end = os.pread(file.fileno(), _FOOTER_BYTES, max(0, status.st_size - _FOOTER_BYTES))
    footer = hashlib.sha256(end).hexdigest()
    return f"{path.name} {status.st_size} {status.st_mtime_ns} {footer}"


def is_unpacked(spool: Path, path: Path) -> bool:
    """Whether the plain file of a parquet file lies in `spool`, whole, and made of this very file.

    Raises:
        UserError: the parquet file cannot be read.
    """
    content, table_path = _spooled(spool, path)
    try:
        with np.load(table_path, allow_pickle=False) as table:
            identity, size = str(table["identity"]), int(table["length"].sum())
        whole = content.stat().st_size == size
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return False
    return whole and identity == parquet_identity(path)


def _spooled(spool: Path, path: Path) -> tuple[Path, Path]:
    return spool / f"{path.stem}.bytes", spool / f"{path.stem}.npz"


def _unpack(spool: Path, path: Path) -> None:
    """Write one parquet file's images one after the other, and beside them what they are."""
    content, table = _spooled(spool, path)
    identity = parquet_identity(path)
    classes: list[str] = []
    names: list[bytes] = []
    lengths: list[int] = []
    try:
        table.unlink(missing_ok=True)  # of another file of this name
        with content.open("wb") as out:
            for class_name, name, data in _rows(path):
                classes.append(class_name)
                names.append(name)
                lengths.append(len(data))
                out.write(data)
                _check_expansion(path, out.tell())
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        content.unlink(missing_ok=True)
        raise unwritable(content, error) from error
    if parquet_identity(path) != identity:
        raise UserError(f"source: {path} changed while it was read; call again")
    # The table's name says that both are whole.
    columns = io.BytesIO()
    np.savez(
        columns,
        identity=np.array(identity),
        class_name=np.array(classes, dtype=np.str_),
        name=np.array(names, dtype=np.bytes_),
        length=np.array(lengths, dtype=np.int64),
    )
    replace_file(table, columns.getbuffer())


def _rows(path: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Class, file name and bytes of every row of a parquet file."""
    import pyarrow.parquet

    number = 0
    with _parquet_errors(path), pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_PARQUET_ROWS, columns=["image", "label"]):
            for row in batch.to_pylist():
                yield _row(row, path, number)
                number += 1


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Say what pyarrow raises in one line."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"source: {path} cannot be read as imagenet-1k's parquet ({reason}); needed are the "
            "columns image (bytes, path) and label; download it again"
        ) from error


def _row(row: dict[str, Any], path: Path, number: int) -> tuple[str, bytes, bytes]:
    """Class, file name and bytes of one row."""
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
    match = _NAME_WITH_CLASS.fullmatch(name)
    if match:
        return match["wnid"], f"{match['stem']}{match['suffix']}".encode(), data
    return str(label), name.encode(), data
