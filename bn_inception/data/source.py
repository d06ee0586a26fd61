"""Sources of images: numbered lists of encoded images with labels."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


class PackedNames:
    """A sequence of byte strings, stored as one array of text and one of ends.

    A Python list of a million paths takes over 100 MB in every worker: reading it changes reference
    counts, which copies the pages that fork shares. This takes the text plus eight bytes a name,
    and reading it writes nothing.
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        blob, lengths = bytearray(), bytearray()
        for name in names:
            blob += name
            lengths += len(name).to_bytes(4, "little")
        self.text: NDArray[np.uint8] = np.frombuffer(bytes(blob), np.uint8)
        self.ends: NDArray[np.int64] = np.cumsum(np.frombuffer(bytes(lengths), "<u4"), dtype="i8")

    @classmethod
    def of(cls, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> "PackedNames":
        """Names stored one after the other in `text`; the i-th ends at `ends[i]`."""
        packed = cls.__new__(cls)
        packed.text, packed.ends = text, ends
        return packed

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}")
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        text, start = self.text.tobytes(), 0
        for end in self.ends.tolist():
            yield text[start:end]
            start = end


class ImageSource(ABC):
    """Encoded images by number; cheap to pickle, and safe to read from several processes.

    Attributes:
        classes: names of the classes; the position is the label.
        labels: label of every image, shape (images,).
        names: paths below the split's folder.
    """

    def __init__(
        self, classes: tuple[str, ...], labels: NDArray[np.int64], names: PackedNames
    ) -> None:
        assert len(labels) == len(names)
        self.classes, self.labels, self.names = classes, labels, names
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def sizes(self) -> NDArray[np.integer[Any]]:
        """Bytes of every encoded image, shape (images,); -1 if unknown."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError if they cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's path, by which a person can find it."""

    def identity(self, index: int) -> str:
        """The image's unique name below the split, such as "n01440764/a.JPEG".

        Bytes that are not UTF-8 become backslash escapes, so that it is always plain text.
        """
        return self.names[index].decode("utf-8", "backslashreplace")

    def fingerprint(self) -> str:
        """See `content_fingerprint`; independent of the images' place. Computed once."""
        if self._fingerprint is None:
            rows = zip(self.names, self.sizes.tolist(), self.labels.tolist(), strict=True)
            self._fingerprint = content_fingerprint(self.classes, rows)
        return self._fingerprint


def content_fingerprint(classes: Sequence[str], images: Iterable[tuple[bytes, int, int]]) -> str:
    """SHA-256 in hexadecimal digits over class names and every image's path, size and label.

    Sizes stand for contents, because hashing ImageNet's 140 GB would take many minutes. A change of
    bytes that keeps the size is therefore not detected here, but by the checksums of shards and
    the audit's SHA-256. A folder and the unmodified shards made of it have the same
    fingerprint. `images` are (path below the split, bytes, label), in the order of the indices.
    """
    digest = hashlib.sha256("\n".join(classes).encode(errors="surrogateescape"))
    for name, size, label in images:
        digest.update(b"\n%s\t%d\t%d" % (name, size, label))
    return digest.hexdigest()


class FolderSource(ImageSource):
    """Image files below the folder of a split, such as ROOT/train."""

    def __init__(
        self, folder: str, classes: tuple[str, ...], names: PackedNames, labels: NDArray[np.int64]
    ) -> None:
        super().__init__(classes, labels, names)
        self._folder = os.fsencode(folder)
        self._sizes: NDArray[np.int64] | None = None

    def _path(self, index: int) -> bytes:
        return os.path.join(self._folder, self.names[index])

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        # Opened and closed here: forked workers would share a handle that stays open, and one
        # worker's seek would change the other's position.
        with open(self._path(index), "rb", buffering=0) as file:
            return file.read()

    def name(self, index: int) -> str:
        """The file's path."""
        return os.fsdecode(self._path(index))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """See `ImageSource`; asked once: ImageNet's take seconds on a local disk."""
        if self._sizes is None:
            self._sizes = np.fromiter(map(self._size, range(len(self))), np.int64, len(self))
        return self._sizes

    def _size(self, index: int) -> int:
        try:
            return os.stat(self._path(index)).st_size
        except OSError:
            return -1  # reading it fails later, by name, under data.on_error


def class_order(names: Iterable[str]) -> list[str]:
    """Class folders in label order: by value if all are decimal numbers, else as plain text."""
    names = list(names)
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    # Names with a leading dot are no images: macOS leaves "._x.JPEG" beside "x.JPEG".
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
