"""Shards: a data set in tar files of about a thousand images each, read at random by offset.

A split is a family of files in one folder:

- `train-000000.tar`, ...: uncompressed tar files in the WebDataset naming convention: members
  `<key>.jpg`, the encoded image (of whatever format it was), and `<key>.cls`, the label in decimal
  digits. The key is `<index>-<the file's name>`: unique, ASCII and free of dots.
- `train.index/`: one `.npy` a column, in the order of the image indices; see `COLUMNS`.
- `train.sha256`: checksums of all these files, as `sha256sum -c train.sha256` reads them.
- `train.json`: everything else. Written last: where it lies, the split is whole.

Image i of the shards is image i of the folder reader: images are sorted by label, then by name.
Shard s holds `stored_order(images)[s * shard_size : (s + 1) * shard_size]`, so that a run whose
`order.shard_size` is the same reads one shard after the other.
"""

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bn_inception.data.fingerprint import content_fingerprint
from bn_inception.data.parallel import unordered
from bn_inception.errors import UserError

FORMAT = "bn-inception shards"
VERSION = 1
COLUMNS: dict[str, type[np.generic]] = {
    "shard": np.int32,  # (images,): number of the shard
    "offset": np.int64,  # (images,): where the encoded image begins in it, bytes
    "length": np.int32,  # (images,): bytes of the encoded image
    "label": np.int64,  # (images,): never falling
    "name_end": np.int64,  # (images,): where the image's name ends in `names`
    "names": np.uint8,  # (characters,): paths below the split's folder, one after the other
}
ORIGINAL = "original bytes"

# Under the common limit of 1,024 open files, and over the shards of ImageNet's validation images,
# which are read in the order of their indices and so from all shards at once.
_OPEN_FILES = 64

_READ_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN = 60  # characters of a wrong value


def shard_file(split: str, shard: int) -> str:
    """Name of a shard: "train-000007.tar"."""
    return f"{split}-{shard:06d}.tar"


def member_key(index: int, name: bytes) -> str:
    """Key of an image inside its shard: 41, b"n01/n01_5.JPEG" -> "00000041-n01_5".

    WebDataset readers take everything up to the first dot as the key, so it holds none.
    """
    stem = name.rpartition(b"/")[2].rpartition(b".")[0].decode("ascii", "replace")
    # 60 characters: a plain tar header holds a name of 100.
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem[:60])
    return f"{index:08d}-{plain}"


@dataclass
class ShardMeta:
    """What `<split>.json` holds.

    Attributes:
        split: "train" or "val".
        classes: names in label order.
        images: number of images.
        shard_size: images in every shard but the last.
        encoding: `ORIGINAL`, or how the images were encoded again.
        source_fingerprint: of the images the shards were made of.
        fingerprint: of the images in the shards; the same if the encoding is the original.
        shard_bytes: size of every shard.
        shard_sha256: SHA-256 of every shard.
        index_sha256: SHA-256 of every column's file.
    """

    split: str
    classes: list[str]
    images: int
    shard_size: int
    encoding: str
    source_fingerprint: str
    fingerprint: str
    shard_bytes: list[int] = field(default_factory=list)
    shard_sha256: list[str] = field(default_factory=list)
    index_sha256: dict[str, str] = field(default_factory=dict)
    order: str = "stored_order(images)"
    format: str = FORMAT
    version: int = VERSION

    def as_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def sha256sums(self) -> str:
        """Text of the file of checksums, in the form of the program sha256sum."""
        lines = [
            f"{digest}  {shard_file(self.split, shard)}\n"
            for shard, digest in enumerate(self.shard_sha256)
        ]
        lines += [f"{d}  {self.split}.index/{c}.npy\n" for c, d in self.index_sha256.items()]
        return "".join(lines)


def read_meta(folder: str | Path, split: str) -> ShardMeta:
    """Read `<split>.json`.

    Raises:
        UserError: it is missing, damaged, or of another version.
    """
    path = Path(folder) / f"{split}.json"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"data.root: {folder} has no {split}.json: no finished shards; make them with "
            f"bn-inception prepare source=IMAGES target={folder}"
        ) from None
    except OSError as error:
        raise UserError(f"data.root: {path} cannot be read ({error}); {_PREPARE_AGAIN}") from error
    return parse_meta(text, split, str(path))


def parse_meta(text: bytes, split: str, path: str) -> ShardMeta:
    """Check the content of `<split>.json`.

    Args:
        text: the file's content.
        split: "train" or "val".
        path: the file's name, for messages.

    Raises:
        UserError: it is damaged, or of another version.
    """
    try:
        values: Any = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"data.root: {path} cannot be read ({error}); {_PREPARE_ANEW}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"data.root: {path} does not describe shards; {_PREPARE_ANEW}")
    if values.get("version") != VERSION:
        raise UserError(
            f"data.root: {path} is of version {_shown(values.get('version'))}, version {VERSION} "
            f"is read; {_PREPARE_ANEW}"
        )
    try:
        meta = ShardMeta(**values)
        _check_description(meta)
        shards = -(-meta.images // meta.shard_size)
        if not (meta.split == split and len(meta.shard_bytes) == len(meta.shard_sha256) == shards):
            raise ValueError("its numbers of images and shards do not agree")
    except (TypeError, ValueError) as error:
        raise UserError(f"data.root: {path} is damaged ({error}); {_PREPARE_ANEW}") from error
    return meta


def _check_description(meta: ShardMeta) -> None:
    """Refuse values that no description holds, whoever wrote them; ValueError names the field."""
    for field_, fits, what in (
        ("split", _is_text, "text"),
        ("classes", _is_list_of(_is_text), "a list of names"),
        ("images", _is_count, "a number over 0"),
        ("shard_size", _is_count, "a number over 0"),
        ("encoding", _is_text, "text"),
        ("source_fingerprint", _is_sha256, "a SHA-256"),
        ("fingerprint", _is_sha256, "a SHA-256"),
        ("shard_bytes", _is_list_of(_is_count), "a list of sizes over 0"),
        ("shard_sha256", _is_list_of(_is_sha256), "a list of SHA-256"),  # become names of files
        ("index_sha256", _is_of_columns, "a SHA-256 of every column"),
        ("order", lambda value: value == ShardMeta.order, f"{ShardMeta.order!r}"),
    ):
        value = getattr(meta, field_)
        if not fits(value):
            raise ValueError(f"{field_} is not {what}: {_shown(value)}")
    if sum(meta.shard_bytes) > np.iinfo(np.int64).max:
        raise ValueError("shard_bytes are more than any disk holds")


def _is_text(value: Any) -> bool:
    """Whether it is text that a file's name may be: Python's way with odd bytes included."""
    try:
        return isinstance(value, str) and bool(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0  # True is an int to isinstance


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is_of_columns(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == COLUMNS.keys()
        and all(map(_is_sha256, value.values()))
    )


def _shown(value: Any) -> str:
    """A JSON value for a message: its beginning, in ASCII."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_PREPARE_AGAIN = "make the shards again with bn-inception prepare"
# Into the folder of a damaged description prepare does not write: it cannot tell what is there.
_PREPARE_ANEW = "make the shards again with bn-inception prepare, in another folder"


def damaged_files(
    source: "ShardSource", workers: int | None, progress: Callable[[int, int], None]
) -> list[str]:
    """Paths of shards and columns that differ from their checksums.

    Args:
        source: an opened split.
        workers: processes; 0 works in this one, None is as many as cores.
        progress: called with how many files are done, and of how many.
    """
    expected = source.checksums()
    bad: list[str] = []
    progress(0, len(expected))
    for done, (path, digest) in enumerate(unordered(_with_sha256, expected, workers), 1):
        if digest != expected[path]:
            bad.append(path)
        progress(done, len(expected))
    return sorted(bad)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits; empty where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def _with_sha256(path: str) -> tuple[str, str]:
    return path, file_sha256(path)


def read_piece(descriptor: int, offset: int, length: int, name: str) -> bytes:
    """`length` bytes of an open file from `offset` on, whatever its position is.

    Raises:
        OSError: the file ends before; `name` says which.
    """
    data = os.pread(descriptor, length, offset)
    while len(data) < length:  # a signal, or over 2 GB
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            raise OSError(f"{name} ends at byte {offset + len(data)}")
        data += more
    return data


class ShardReader(Protocol):
    """Reads pieces of shards by number."""

    def path(self, file: int) -> str:
        """What a person needs to find a shard."""

    def read(self, file: int, offset: int, length: int) -> bytes:
        """`length` bytes of a shard from `offset` on; OSError where they cannot be had."""


class FileReader:
    """Reads pieces of files by position; cheap to pickle, safe in forked processes.

    Every process opens the files for itself, on first use: descriptors that crossed a fork are
    closed, not used. At most `_OPEN_FILES` stay open.

    Args:
        paths: of the files.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type["FileReader"], tuple[tuple[str, ...]]]:
        return FileReader, (self._paths,)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open here; a later read opens again."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def path(self, file: int) -> str:
        """Path of one of the files."""
        return self._paths[file]

    def read(self, file: int, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; OSError where there are fewer."""
        return read_piece(self._descriptor(file), offset, length, self._paths[file])

    def _descriptor(self, file: int) -> int:
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if file in self._open:
            self._open.move_to_end(file)
        else:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[file] = os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC)
        return self._open[file]


class ShardSource:
    """The images of one split's shards.

    The index is mapped, not read: ImageNet's opens in some milliseconds, and what a worker touches
    of it (16 bytes an image) it shares with all others.

    A subclass that finds its files elsewhere overrides the methods under "where the files are".

    Args:
        folder: where the shards lie.
        split: "train" or "val".
        first_classes: only the first N classes; None for all.

    Raises:
        UserError: the split is not whole: something is missing, damaged or of another size.
    """

    def __init__(self, folder: str, split: str, first_classes: int | None = None) -> None:
        self._arguments = (folder, split, first_classes)
        self.meta = self._read_meta()
        columns = {name: self._column(name) for name in COLUMNS}
        self._check(columns)
        self._check_shards()
        # Of images sorted by label, the first classes are the first images.
        classes = len(self.meta.classes) if first_classes is None else first_classes
        self._images = int(np.searchsorted(columns["label"], classes))
        self._classes = tuple(self.meta.classes[:classes])
        self._shard, self._offset = columns["shard"], columns["offset"]
        self._length, self._label = columns["length"], columns["label"]
        self._name_end, self._names = columns["name_end"], columns["names"]
        self._files = self._reader()

    def __reduce__(self) -> tuple[type["ShardSource"], tuple[Any, ...]]:
        # Opened again by its path: a mapped array would be pickled as a copy.
        return ShardSource, self._arguments

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the position is the label."""
        return self._classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of every image, shape (images,)."""
        return self._label[: self._images]

    @property
    def sizes(self) -> NDArray[np.int32]:
        """Bytes of every encoded image, shape (images,)."""
        return self._length[: self._images]

    def __len__(self) -> int:
        return self._images

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError where they cannot be had."""
        self._in_range(index)
        return self._files.read(
            int(self._shard[index]), int(self._offset[index]), int(self._length[index])
        )

    def name(self, index: int) -> str:
        """The shard's path and the member in it: ".../train-000003.tar/00000041-n01_5.jpg"."""
        key = member_key(index, self._identity(index))
        return f"{self._files.path(int(self._shard[index]))}/{key}.jpg"

    def identity(self, index: int) -> str:
        """The path the image had below the split's folder, such as "n01440764/a.JPEG".

        Bytes that are not UTF-8 are written as backslash escapes, so that it is always plain text.
        """
        return self._identity(index).decode("utf-8", "backslashreplace")

    def fingerprint(self) -> str:
        """See `content_fingerprint`: for unmodified shards, that of the folder they were made of.

        Of all classes it is taken from the shards' description, of some it is computed.
        """
        if self._images == self.meta.images:
            return self.meta.fingerprint
        labels, sizes = self.labels.tolist(), self.sizes.tolist()
        rows = ((self._identity(i), sizes[i], labels[i]) for i in range(self._images))
        return content_fingerprint(self._classes, rows)

    def checksums(self) -> dict[str, str]:
        """SHA-256 that every file should have, by path."""
        folder, split, _ = self._arguments
        columns = {
            os.path.join(folder, f"{split}.index", f"{name}.npy"): digest
            for name, digest in self.meta.index_sha256.items()
        }
        return columns | dict(zip(self._shard_paths(), self.meta.shard_sha256, strict=True))

    def _identity(self, index: int) -> bytes:
        self._in_range(index)
        start = int(self._name_end[index - 1]) if index else 0
        return self._names[start : int(self._name_end[index])].tobytes()

    def _in_range(self, index: int) -> None:
        if not 0 <= index < self._images:
            raise IndexError(f"{index} is not in 0..{self._images - 1}")

    def _shard_paths(self) -> list[str]:
        folder, split, _ = self._arguments
        shards = range(len(self.meta.shard_bytes))
        return [os.path.join(folder, shard_file(split, shard)) for shard in shards]

    # Where the files are.

    def _read_meta(self) -> ShardMeta:
        folder, split, _ = self._arguments
        return read_meta(folder, split)

    def _column_path(self, name: str) -> str:
        folder, split, _ = self._arguments
        return os.path.join(folder, f"{split}.index", f"{name}.npy")

    def _check_shards(self) -> None:
        """Refuse shards that are missing or of another size."""
        for path, size in zip(self._shard_paths(), self.meta.shard_bytes, strict=True):
            try:
                found = os.stat(path).st_size
            except OSError as error:
                raise UserError(
                    f"data.root: {path}: {error.strerror}; copy it again, or {_PREPARE_AGAIN}"
                ) from error
            if found != size:
                raise UserError(
                    f"data.root: {path} has {found:,} bytes, not {size:,}; copy it again, or "
                    f"{_PREPARE_AGAIN}"
                )

    def _reader(self) -> ShardReader:
        return FileReader(self._shard_paths())

    def _column(self, name: str) -> NDArray[Any]:
        path = self._column_path(name)
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"data.root: {path} cannot be read ({error}); {_PREPARE_AGAIN}"
            ) from error
        images = None if name == "names" else self.meta.images
        if (
            mapped.dtype != COLUMNS[name]
            or mapped.ndim != 1
            or len(mapped) != (images or len(mapped))
        ):
            raise UserError(
                f"data.root: {path} holds {mapped.shape} {mapped.dtype}, not {images or ''} "
                f"{np.dtype(COLUMNS[name])}; {_PREPARE_AGAIN}"
            )
        # A plain array over the same memory: indexing numpy's memmap class costs several times as
        # much.
        return np.asarray(mapped).view(np.ndarray)

    def _check(self, columns: dict[str, NDArray[Any]]) -> None:
        """Refuse an index that does not belong to these shards."""
        folder, split, _ = self._arguments
        sizes = np.array(self.meta.shard_bytes, dtype=np.int64)
        shard, label, name_end = columns["shard"], columns["label"], columns["name_end"]
        fits = (
            int(shard.min(initial=0)) >= 0
            and int(shard.max(initial=-1)) < len(sizes)
            and int(columns["offset"].min(initial=0)) >= 0
            and int(columns["length"].min(initial=0)) >= 0
            and bool((columns["offset"] + columns["length"] <= sizes[shard]).all())
            and bool((label[1:] >= label[:-1]).all())
            and int(label.min(initial=0)) >= 0
            and int(label.max(initial=-1)) < len(self.meta.classes)
            and bool((name_end[1:] >= name_end[:-1]).all())
            and int(name_end[-1] if len(name_end) else 0) == len(columns["names"])
        )
        if not fits:
            raise UserError(
                f"data.root: {os.path.join(folder, split)}.index does not fit the shards beside "
                f"it; {_PREPARE_AGAIN}"
            )
