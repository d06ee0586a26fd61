"""Shards: a data set in tar files of about a thousand images each, read at random by offset.

A split is a family of files in one folder:

- `train-000000.tar`, ...: uncompressed tar files in the WebDataset naming convention: members
  `<key>.jpg`, the encoded image (of whatever format it was), and `<key>.cls`, the label in decimal
  digits. The key is `<index>-<the file's name>`: unique, ASCII and free of dots.
- `train.index/`: one `.npy` a column, in the order of the image indices; see `COLUMNS`.
- `train.sha256`: checksums of all these files, as `sha256sum -c train.sha256` reads them.
- `train.json`: everything else. It is written last; if it exists, the split is complete.

Image i of the shards is image i of the folder reader: images are sorted by label, then by name.
Shard s holds `stored_order(images)[s * shard_size : (s + 1) * shard_size]`, so a run with the same
`order.shard_size` reads one shard after the other.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
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
from bn_inception.data.source import ImageSource, PackedNames, content_fingerprint
from bn_inception.errors import UserError
from bn_inception.files import first_line

# Below the common limit of 1,024 open files, and above the number of ImageNet's validation shards,
# from all of which images are read in turn, because evaluation follows the indices.
_OPEN_FILES = 64


class FileReader:
    """Reads pieces of files by offset, without a shared file position; cheap to pickle.

    At most `_OPEN_FILES` stay open.

    Args:
        names: of the files, for messages: paths, or URLs that `located` resolves.
        located: makes a file available by its number, and returns its path.
    """

    def __init__(self, names: Sequence[str], located: Callable[[int], str] | None = None) -> None:
        self.names, self._located = tuple(names), located or names.__getitem__
        self._opened = functools.lru_cache(_OPEN_FILES)(functools.partial(_open, self._located))

    def __reduce__(self) -> tuple[type["FileReader"], tuple[Any, ...]]:
        return FileReader, (self.names, self._located)

    def read(self, file: int, offset: int, length: int) -> bytes:
        """`length` bytes of a file from `offset` on; OSError if they cannot be read."""
        descriptor = self._opened(file)
        data = os.pread(descriptor, length, offset)
        while len(data) < length:  # a signal, or over 2 GB
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise OSError(f"{self.names[file]} ends at byte {offset + len(data)}")
            data += more
        return data


class _Descriptor(int):
    """An open file's descriptor; the last reference to it closes the file."""

    def __del__(self) -> None:
        os.close(self)


def _open(located: Callable[[int], str], file: int) -> _Descriptor:
    return _Descriptor(os.open(located(file), os.O_RDONLY | os.O_CLOEXEC))


class PlacedImages(ImageSource):
    """Images stored one after the other in larger files.

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
        """See `ImageSource`."""
        return self._length

    def file_of(self, index: int) -> int:
        """Number of the file that holds an image."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}")
        return int(self._file[index])

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        file = self.file_of(index)
        return self.reader.read(file, int(self._offset[index]), int(self._length[index]))

    def name(self, index: int) -> str:
        """The file's path and the image's name."""
        return f"{self.reader.names[self.file_of(index)]}/{os.fsdecode(self.names[index])}"


class ShardFiles:
    """The paths of one split's files, in a local folder."""

    def __init__(self, folder: str, split: str) -> None:
        self.folder, self.split = folder, split
        try:
            self.meta = read_meta(Path(folder, f"{split}.json"), split)
        except FileNotFoundError:
            raise UserError(
                f"data.root: {folder} has no {split}.json: no finished shards; make them with "
                f"bn-inception prepare source=IMAGES target={folder}"
            ) from None

    def column(self, name: str) -> str:
        """Local path of a column's file."""
        return os.path.join(self.folder, column_file(self.split, name))

    def shards(self) -> list[str]:
        """Paths of the shards."""
        return [os.path.join(self.folder, file) for file in self.meta.shard_files()]

    def reader(self) -> FileReader:
        """Reads the shards.

        Raises:
            UserError: a shard is missing or has another size.
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

    The index is compared with its checksums and then memory-mapped, so that all workers share the
    pages they use (16 bytes an image).

    Args:
        folder: of the shards.
        first_classes: only the first N classes; None for all.
        files: for other places than a local folder.

    Raises:
        UserError: the split is incomplete: a file is missing, damaged or has another size.
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
        # Images are sorted by label, so the first classes are the first images.
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
        # Opened again by its path, because a mapped array would be pickled as a copy.
        return ShardSource, self._arguments

    def name(self, index: int) -> str:
        """The shard's path and the member in it: ".../train-000003.tar/00000041-n01_5.jpg"."""
        key = member_key(index, self.names[index])
        return f"{self.reader.names[self.file_of(index)]}/{key}.jpg"

    def check_fingerprint(self) -> None:
        """Compare the fingerprint with that of the description (a second for ImageNet).

        Raises:
            UserError: they differ.
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
        # A plain array over the same memory: indexing numpy's memmap class is several times as
        # slow.
        return np.asarray(mapped).view(np.ndarray)

    def _check(self, columns: dict[str, NDArray[Any]]) -> None:
        """Refuse an index that does not fit these shards."""
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
