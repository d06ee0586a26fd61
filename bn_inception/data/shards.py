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

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bn_inception.data.description import (
    COLUMNS,
    PREPARE_AGAIN,
    PREPARE_ANEW,
    ShardMeta,
    column_file,
    file_sha256,
    member_key,
    read_meta,
)
from bn_inception.data.parallel import unordered
from bn_inception.data.source import NamedImages, PackedNames, content_fingerprint
from bn_inception.errors import UserError
from bn_inception.files import first_line

# Under the common limit of 1,024 open files, and over the shards of ImageNet's validation images,
# which are read in the order of their indices and so from all shards at once.
_OPEN_FILES = 64


class FileReader:
    """Reads pieces of files by position; cheap to pickle, safe in forked processes.

    Every process opens the files for itself, on first use: descriptors that crossed a fork are
    closed, not used. At most `_OPEN_FILES` stay open.

    Args:
        paths: of the files.
        names: what a person needs to find them; None: their paths.
        ready: called with a file's number before it is opened.
    """

    def __init__(
        self,
        paths: Sequence[str],
        names: Sequence[str] | None = None,
        ready: Callable[[int], None] | None = None,
    ) -> None:
        self.names = tuple(paths if names is None else names)
        self._paths, self._ready = tuple(paths), ready
        self._open: OrderedDict[int, int] = OrderedDict()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type["FileReader"], tuple[Any, ...]]:
        return FileReader, (self._paths, self.names, self._ready)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open here; a later read opens again."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def read(self, file: int, offset: int, length: int) -> bytes:
        """`length` bytes of a file from `offset` on; OSError where they cannot be had."""
        descriptor = self._descriptor(file)
        data = os.pread(descriptor, length, offset)
        while len(data) < length:  # a signal, or over 2 GB
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise OSError(f"{self._paths[file]} ends at byte {offset + len(data)}")
            data += more
        return data

    def _descriptor(self, file: int) -> int:
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if file not in self._open:
            if self._ready is not None:
                self._ready(file)
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[file] = os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC)
        self._open.move_to_end(file)
        return self._open[file]


class PlacedImages(NamedImages):
    """Images that lie one after the other in larger files.

    `places` are the columns file (its number), offset and length (bytes), shape (images,) each.
    """

    def __init__(
        self,
        reader: FileReader,
        classes: tuple[str, ...],
        labels: NDArray[np.int64],
        names: PackedNames,
        places: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    ) -> None:
        super().__init__(classes, labels, names)
        self.reader = reader
        self._file, self._offset, self._length = places

    @property
    def sizes(self) -> NDArray[np.integer[Any]]:
        """Bytes of every encoded image, shape (images,)."""
        return self._length

    def file_of(self, index: int) -> int:
        """Number of the file that holds an image."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}")
        return int(self._file[index])

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError where they cannot be had."""
        file = self.file_of(index)
        return self.reader.read(file, int(self._offset[index]), int(self._length[index]))

    def name(self, index: int) -> str:
        """The file's path and the image's name."""
        return f"{self.reader.names[self.file_of(index)]}/{os.fsdecode(self.names[index])}"


class ShardFiles:
    """Where the files of one split lie: here, in a local folder."""

    def __init__(self, folder: str, split: str) -> None:
        self.folder, self.split = folder, split
        self.meta = read_meta(folder, split)

    def column(self, name: str) -> str:
        """Local path of a column's file."""
        return os.path.join(self.folder, column_file(self.split, name))

    def shards(self) -> list[str]:
        """Paths of the shards."""
        return [os.path.join(self.folder, file) for file in self.meta.shard_files()]

    def reader(self) -> FileReader:
        """Reads the shards.

        Raises:
            UserError: one is missing or of another size.
        """
        for path, size in zip(self.shards(), self.meta.shard_bytes, strict=True):
            try:
                found = os.stat(path).st_size
            except OSError as error:
                raise UserError(
                    f"data.root: {path}: {first_line(error)}; copy it again, or {PREPARE_AGAIN}"
                ) from error
            if found != size:
                raise UserError(
                    f"data.root: {path} has {found:,} bytes, not {size:,}; copy it again, or "
                    f"{PREPARE_AGAIN}"
                )
        return FileReader(self.shards())


class ShardSource(PlacedImages):
    """The images of one split's shards.

    The index is compared with its checksums, and then mapped, not read: what a worker touches of it
    (16 bytes an image) it shares with all others.

    Args:
        folder: where the shards lie.
        first_classes: only the first N classes; None for all.
        files: finds them there, if it is no local folder.

    Raises:
        UserError: the split is not whole: something is missing, damaged or of another size.
    """

    def __init__(
        self,
        folder: str,
        split: str,
        first_classes: int | None = None,
        files: Callable[[str, str], ShardFiles] = ShardFiles,
    ) -> None:
        self._arguments = (folder, split, first_classes, files)
        self.files = files(folder, split)
        self.meta: ShardMeta = self.files.meta
        columns = {name: self._column(name) for name in COLUMNS}
        self._check(columns)
        # Of images sorted by label, the first classes are the first images.
        classes = len(self.meta.classes) if first_classes is None else first_classes
        images = int(np.searchsorted(columns["label"], classes))
        self._all = columns
        super().__init__(
            self.files.reader(),
            tuple(self.meta.classes[:classes]),
            columns["label"][:images],
            PackedNames.of(columns["names"], columns["name_end"][:images]),
            (columns["shard"][:images], columns["offset"][:images], columns["length"][:images]),
        )

    def __reduce__(self) -> tuple[type["ShardSource"], tuple[Any, ...]]:
        # Opened again by its path: a mapped array would be pickled as a copy.
        return ShardSource, self._arguments

    def name(self, index: int) -> str:
        """The shard's path and the member in it: ".../train-000003.tar/00000041-n01_5.jpg"."""
        key = member_key(index, self.names[index])
        return f"{self.reader.names[self.file_of(index)]}/{key}.jpg"

    def check_fingerprint(self) -> None:
        """Compute the fingerprint that the description gives (a second for ImageNet).

        Raises:
            UserError: it gives another one.
        """
        meta, columns = self.meta, self._all
        names = PackedNames.of(columns["names"], columns["name_end"])
        rows = zip(names, columns["length"].tolist(), columns["label"].tolist(), strict=True)
        found = content_fingerprint(meta.classes, rows)
        if found != meta.fingerprint:
            raise UserError(
                f"data.root: {self.files.folder}/{meta.split}.json gives the fingerprint "
                f"{meta.fingerprint[:12]}..., its images have {found[:12]}...: it was changed; "
                f"{PREPARE_ANEW}"
            )
        if len(self) == meta.images:
            self._fingerprint = found

    def _column(self, name: str) -> NDArray[Any]:
        path = self.files.column(name)
        images = None if name == "names" else self.meta.images
        try:
            digest = file_sha256(path)
            mapped = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError) as error:
            raise UserError(
                f"data.root: {path} cannot be read ({first_line(error)}); {PREPARE_AGAIN}"
            ) from error
        if digest != self.meta.index_sha256[name]:
            raise UserError(
                f"data.root: {path} differs from its checksum in {self.meta.split}.json: it was "
                f"changed or damaged; copy it again, or {PREPARE_AGAIN}"
            )
        if (
            mapped.dtype != COLUMNS[name]
            or mapped.ndim != 1
            or len(mapped) != (images or len(mapped))
        ):
            raise UserError(
                f"data.root: {path} holds {mapped.shape} {mapped.dtype}, not {images or ''} "
                f"{np.dtype(COLUMNS[name])}; {PREPARE_AGAIN}"
            )
        # A plain array over the same memory: indexing numpy's memmap class costs several times as
        # much.
        return np.asarray(mapped).view(np.ndarray)

    def _check(self, columns: dict[str, NDArray[Any]]) -> None:
        """Refuse an index that does not belong to these shards."""
        sizes = np.array(self.meta.shard_bytes, dtype=np.int64)
        shard, offset, length = columns["shard"], columns["offset"], columns["length"]
        label, name_end = columns["label"], columns["name_end"]
        fits = (
            _within(shard, len(sizes) - 1)
            and int(offset.min()) >= 0
            and int(length.min()) >= 0
            and bool((length <= sizes[shard]).all() and (offset <= sizes[shard] - length).all())
            and _within(label, len(self.meta.classes) - 1)
            and bool((label[1:] >= label[:-1]).all())
            and _within(name_end, len(columns["names"]))
            and bool((name_end[1:] >= name_end[:-1]).all())
            and int(name_end[-1]) == len(columns["names"])
        )
        if not fits:
            raise UserError(
                f"data.root: {self.files.folder}/{self.meta.split}.index does not fit the shards "
                f"beside it; {PREPARE_AGAIN}"
            )


def _within(column: NDArray[Any], most: int) -> bool:
    return int(column.min()) >= 0 and int(column.max()) <= most


def damaged_shards(
    source: ShardSource, workers: int | None, progress: Callable[[int, int], None]
) -> list[str]:
    """Paths of shards that differ from their checksums.

    `progress` is called with how many files are done, and of how many.
    """
    expected = dict(zip(source.files.shards(), source.meta.shard_sha256, strict=True))
    bad: list[str] = []
    progress(0, len(expected))
    for done, (path, digest) in enumerate(unordered(_with_sha256, expected, workers), 1):
        if digest != expected[path]:
            bad.append(path)
        progress(done, len(expected))
    return sorted(bad)


def _with_sha256(path: str) -> tuple[str, str]:
    return path, file_sha256(path)
