"""Shards: a data set in tar files of about a thousand images each, read at random by offset.

A split is a family of files in one folder:

- `train-000000.tar`, ...: uncompressed tar files in the WebDataset naming convention: members
  `<key>.jpg`, the encoded image (of whatever format), and `<key>.cls`, the label in digits.
- `train.index.npy`: length (bytes), label and name of every image, in the folder reader's order.
- `train.sha256`: checksums of these files, as `sha256sum -c train.sha256` reads them.
- `train.json`: everything else. When it names the checksums of all shards, the split is complete.

Shard s holds `stored_order(images)[s * shard_size : (s + 1) * shard_size]`, so a run with the same
`order.shard_size` reads one shard after the other. Offsets follow from that order and the lengths.
"""

import json
import os
import re
import tarfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bn_inception.data import remote
from bn_inception.data.order import stored_order
from bn_inception.data.source import ImageSource, PlacedImages, content_fingerprint
from bn_inception.errors import UserError
from bn_inception.fields import MAX_BYTES, parse_object
from bn_inception.files import first_line, is_url, read_bytes, refusing

FORMAT = "bn-inception shards 2"
PREPARE_AGAIN = "copy it again, or make the shards again with bn-inception prepare"
_MAX_IMAGE_BYTES = 1 << 32  # keeps sums of lengths below 2^63


def shard_file(split: str, shard: int) -> str:
    """Name of a shard: "train-000007.tar"."""
    return f"{split}-{shard:06d}.tar"


def index_file(split: str) -> str:
    """Name of a split's index: "train.index.npy"."""
    return f"{split}.index.npy"


def member_key(index: int, name: bytes) -> str:
    """Key of an image inside its shard: 41, b"n01/n01_5.JPEG" -> "00000041-n01_5"; no dot in it."""
    stem = name.rpartition(b"/")[2].rpartition(b".")[0].decode("ascii", "replace")
    # 60 characters, because a plain tar header has room for 100.
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem[:60])
    return f"{index:08d}-{plain}"


class Layout:
    """Where each image lies in the shards of a split, from the images' lengths in bytes."""

    def __init__(self, lengths: NDArray[np.int64], shard_size: int) -> None:
        order = stored_order(len(lengths))
        blocks = -(-lengths[order] // tarfile.BLOCKSIZE) + 3  # and header, label's header, label
        ends = np.cumsum(blocks * tarfile.BLOCKSIZE)
        starts = ends - blocks * tarfile.BLOCKSIZE
        place = np.arange(len(order))
        # of every shard the indices of its images, in order
        self.shards = [order[i : i + shard_size] for i in range(0, len(order), shard_size)]
        # of every image its shard and its place there
        self.shard, self.offset = np.empty_like(order), np.empty_like(order)
        self.shard[order] = place // shard_size
        self.offset[order] = starts - starts[place // shard_size * shard_size] + tarfile.BLOCKSIZE
        last = [*place[shard_size - 1 : -1 : shard_size], -1]
        content = ends[last] - starts[::shard_size] + 2 * tarfile.BLOCKSIZE  # the end's zeros
        records = -(-content // tarfile.RECORDSIZE)
        # of every shard its size
        self.bytes: list[int] = (records * tarfile.RECORDSIZE).tolist()


@dataclass
class Description:
    """What `<split>.json` holds; it may be hostile, and checksums become names of files."""

    split: str  # "train" or "val"
    classes: list[str]  # in label order
    images: int
    shard_size: int  # images in every shard but the last
    fingerprint: str  # see `ImageSource`
    index_sha256: str
    shard_sha256: list[str] = field(default_factory=list)  # empty until all are finished
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format!r:.60}, not {FORMAT!r}")
        if not (0 < self.images < 1 << 40 and 0 < self.shard_size < 1 << 40):
            raise ValueError(f"it has {self.images} images in shards of {self.shard_size}")
        if len(self.shard_sha256) not in (0, -(-self.images // self.shard_size)):
            raise ValueError("its numbers of images and shards do not agree")
        for digest in (self.fingerprint, self.index_sha256, *self.shard_sha256):
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"{digest!r:.60} is not a SHA-256")
        for name in self.classes:
            if not name.encode("utf-8", "surrogateescape"):
                raise ValueError("a class has no name")

    def as_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def shard_files(self) -> list[str]:
        """Names of the shards."""
        return [shard_file(self.split, shard) for shard in range(len(self.shard_sha256))]

    def sha256sums(self) -> str:
        """Text of the file of checksums, in the form of the program sha256sum."""
        sums = [*zip(self.shard_sha256, self.shard_files(), strict=True)]
        sums.append((self.index_sha256, index_file(self.split)))
        return "".join(f"{digest}  {file}\n" for digest, file in sums)


def read_description(path: Path, split: str, where: str, remedy: str) -> Description:
    """Read and check `<split>.json`, which errors call `where`.

    FileNotFoundError: it is missing; otherwise a UserError that ends in `remedy`.
    """
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
        about = parse_object(text, "it", "").as_(Description)
        if about.split != split:
            raise ValueError(f"its split is {about.split!r:.60}")
        return about
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = first_line(error)[:200]
        raise UserError(f"{where} is damaged ({reason}); {remedy}") from error


class ShardSource(PlacedImages):
    """The images of one split's shards; `root` is a local folder or a URL that fsspec understands.

    `cache` is the folder for what is fetched from a URL. A UserError tells that the split is
    incomplete: a file is missing, damaged or has another size.
    """

    def __init__(
        self, root: str, split: str, first_classes: int | None = None, cache: Path | None = None
    ) -> None:
        self._cache = cache if is_url(root) else None
        self._root = root.rstrip("/") if is_url(root) else root
        self.description = about = self._described(split)
        length, label, name = self._index()
        layout = Layout(length, about.shard_size)
        self._bytes = layout.bytes
        files = [os.path.join(self._root, file) for file in about.shard_files()]
        if self._cache is None:
            for path, size in zip(files, layout.bytes, strict=True):
                with refusing(f"data.root: {path} cannot be read", PREPARE_AGAIN):
                    found = os.stat(path).st_size
                if found != size:
                    raise UserError(
                        f"data.root: {path} has {found:,} bytes, not {size:,}; {PREPARE_AGAIN}"
                    )
        if content_fingerprint(about.classes, name, length, label) != about.fingerprint:
            raise UserError(
                f"data.root: {self._root}/{index_file(split)} gives another fingerprint than "
                f"{split}.json: one was changed or damaged; {PREPARE_AGAIN}"
            )
        # Images are sorted by label, so the first classes are the first images.
        last = None if first_classes is None else int(np.searchsorted(label, first_classes))
        places = layout.shard[:last], layout.offset[:last], length[:last]
        super().__init__(about.classes[:first_classes], label[:last], name[:last], files, places)

    def _described(self, split: str) -> Description:
        name, what = f"{self._root}/{split}.json", "no"
        found = remote.fetched_once(name, self._cache) if self._cache else nullcontext(Path(name))
        try:
            with found as path:
                about = read_description(path, split, f"data.root: {name}", PREPARE_AGAIN)
            if about.shard_sha256:
                return about
            what = "an unfinished"
        except FileNotFoundError:
            pass
        raise UserError(
            f"data.root: {self._root} has {what} {split}.json: no finished shards; make them with "
            "bn-inception prepare source=IMAGES target=FOLDER"
        )

    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bytes_]]:
        """Lengths, labels and names; mapped, not read, so that a hostile size costs nothing."""
        about = self.description
        path = self._local(index_file(about.split), None, about.index_sha256)
        faults = (ValueError, IndexError, EOFError)
        with refusing(f"data.root: {path} cannot be read", PREPARE_AGAIN, *faults):
            index = np.lib.format.open_memmap(path, mode="r")
            length, label, name = (index[column] for column in ("length", "label", "name"))
            if not (
                length.dtype == label.dtype == np.int64
                and name.dtype.kind == "S"
                and index.shape == (about.images,)
                and 0 <= length.min() <= length.max() < _MAX_IMAGE_BYTES
                and 0 <= label[0] <= label[-1] < len(about.classes)
                and (label[1:] >= label[:-1]).all()
            ):
                raise ValueError("it does not fit the shards")
        return np.array(length), np.array(label), np.array(name)

    def located(self, file: int) -> str:
        """The local path of a shard."""
        about = self.description
        name = shard_file(about.split, file)
        return self._local(name, self._bytes[file], about.shard_sha256[file])

    def _local(self, file: str, size: int | None, sha256: str) -> str:
        """The local path of a file, which is fetched if it lies at a URL."""
        if self._cache is None:
            return os.path.join(self._root, file)
        kept = self._cache / f"{sha256[:16]}.{file}"
        return remote.fetched(f"{self._root}/{file}", kept, size, sha256)

    def name(self, index: int) -> str:
        """The shard's path and the member in it: ".../train-000003.tar/00000041-n01_5.jpg"."""
        return f"{self.files[self._file[index]]}/{member_key(index, self.names[index])}.jpg"


def as_index(source: ImageSource) -> NDArray[Any]:
    """The content of the index, shape (images,)."""
    columns = {"length": source.sizes, "label": source.labels, "name": source.names}
    index = np.empty(len(source), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        index[name] = column
    return index
