"""Sources of images: numbered lists of encoded images with labels."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")

Labels = NDArray[np.int64]
Names = Sequence[bytes] | NDArray[np.bytes_]


class ImageSource(ABC):
    """Encoded images by number; safe to read from several processes.

    `labels` and `names`, paths below the split's folder, have shape (images,). They are arrays:
    reading a list changes its reference counts, and so copies pages that forked workers share.
    """

    def __init__(self, classes: Sequence[str], labels: Labels, names: Names) -> None:
        assert len(labels) == len(names)
        self.classes, self.labels = tuple(classes), labels
        self.names: NDArray[np.bytes_] = np.asarray(names, dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every encoded image, shape (images,); -1 if unknown."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError if they cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's path, by which a person can find it."""

    def identity(self, index: int) -> str:
        """The image's unique name below the split, such as "n01440764/a.JPEG".

        Bytes that are not UTF-8 become backslash escapes.
        """
        return str(self.names[index].decode("utf-8", "backslashreplace"))

    @cached_property
    def fingerprint(self) -> str:
        """See `content_fingerprint`; independent of the images' place."""
        return content_fingerprint(self.classes, self.names, self.sizes, self.labels)


def content_fingerprint(classes: Sequence[str], *columns: NDArray[Any]) -> str:
    """SHA-256 over class names and the columns names, sizes and labels of all images.

    Sizes stand for contents, because hashing ImageNet's 140 GB would take many minutes. A folder
    and the shards made of it have the same fingerprint.
    """
    digest = hashlib.sha256("\n".join(classes).encode(errors="surrogateescape"))
    for row in zip(*(column.tolist() for column in columns), strict=True):
        digest.update(b"\n%s\t%d\t%d" % row)
    return digest.hexdigest()


class FolderSource(ImageSource):
    """Image files below the folder of a split, such as ROOT/train."""

    def __init__(self, folder: str, classes: Sequence[str], labels: Labels, names: Names) -> None:
        super().__init__(classes, labels, names)
        self._folder = os.fsencode(folder)

    def _path(self, index: int) -> bytes:
        return os.path.join(self._folder, self.names[index])

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        with open(self._path(index), "rb", buffering=0) as file:
            return file.read()

    def name(self, index: int) -> str:
        """The file's path."""
        return os.fsdecode(self._path(index))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """See `ImageSource`; ImageNet's take seconds on a local disk."""
        sizes = np.full(len(self), -1)
        for index in range(len(self)):
            with suppress(OSError):  # reading it fails later, by name, under data.on_error
                sizes[index] = os.stat(self._path(index)).st_size
        return sizes


class PlacedImages(ImageSource):
    """Images in larger files; `places` are number of the file, offset and length in bytes."""

    def __init__(
        self,
        classes: Sequence[str],
        labels: Labels,
        names: Names,
        files: Sequence[str],
        places: tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]],
    ) -> None:
        super().__init__(classes, labels, names)
        self.files = files
        self._file, self._offset, self._length = places

    @property
    def sizes(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self._length

    def located(self, file: int) -> str:
        """The local path of a file, by its number."""
        return self.files[file]

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        # Opened for each image: forked workers would share the position in an open file.
        with open(self.located(self._file[index]), "rb") as file:
            file.seek(self._offset[index])
            data = file.read(self._length[index])
        if len(data) < self._length[index]:
            raise OSError(f"{self.files[self._file[index]]} ends early")
        return data

    def name(self, index: int) -> str:
        """The file's path and the image's name."""
        return f"{self.files[self._file[index]]}/{os.fsdecode(self.names[index])}"


def class_order(names: Iterable[str]) -> list[str]:
    """Class folders in label order: by value if all are decimal numbers, else as plain text."""
    names = sorted(names)
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return names


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    # Names with a leading dot are no images: macOS leaves "._x.JPEG" beside "x.JPEG".
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
