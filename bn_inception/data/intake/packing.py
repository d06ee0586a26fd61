"""Writing the shards of one split: see `data.shards` for what they are.

Work is done shard by shard, so it can be killed at any time: a shard that is finished lies under
its own name, with a record of it in `<split>.partial/`. All that is being written lies in that
folder, and moves to its place whole.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from bn_inception.data.description import (
    COLUMNS,
    ORIGINAL,
    ShardMeta,
    column_file,
    file_sha256,
    member_key,
    shard_file,
)
from bn_inception.data.intake import marked
from bn_inception.data.intake.recompression import Recompression
from bn_inception.data.order import stored_order
from bn_inception.data.pixels.decode import UnreadableImage
from bn_inception.data.shards import PlacedImages
from bn_inception.data.source import FolderSource, content_fingerprint
from bn_inception.errors import UserError
from bn_inception.files import first_line, is_left_over, read_json, replacing

# What a shard holds beside an image: two headers, the label, and padding to whole blocks.
_TAR_OVERHEAD = 4 * tarfile.BLOCKSIZE
_INDEX_BYTES = 96  # an image; the columns and a long name


@dataclass(frozen=True)
class Record:
    """A finished shard; lists have one entry an image, in the order of the shard."""

    bytes: int
    sha256: str
    offset: list[int]
    length: list[int]


class Job:
    """The shards of one split; knows where everything lies."""

    def __init__(
        self,
        source: FolderSource | PlacedImages,
        split: str,
        target: Path,
        recompression: Recompression | None,
        shard_size: int,
    ) -> None:
        self.source, self.split, self.target = source, split, target
        self.recompression = recompression
        self.partial = target / f"{split}.partial"
        self.description = target / f"{split}.json"
        size = min(shard_size, len(source))
        stored = stored_order(len(source))
        self.indices = [stored[start : start + size] for start in range(0, len(source), size)]
        self.meta = ShardMeta(
            split=split,
            classes=list(source.classes),
            images=len(source),
            shard_size=size,
            encoding=ORIGINAL if recompression is None else recompression.describe(),
            source_fingerprint=source.fingerprint(),
            fingerprint=source.fingerprint(),
        )

    def path(self, shard: int) -> Path:
        """Of a shard."""
        return self.target / shard_file(self.split, shard)

    def record(self, shard: int) -> Record | None:
        """Of a finished shard; None where there is none, or not a whole one."""
        try:
            return Record(**read_json(self._record_path(shard)))
        except (OSError, ValueError, TypeError):
            return None

    def missing_bytes(self) -> int:
        """At most so many bytes are still to be written."""
        if self.description.exists():
            return 0
        sizes = self.source.sizes
        images = [own for n, own in enumerate(self.indices) if not self._record_path(n).exists()]
        missing = sum(int(sizes[own].sum()) + _TAR_OVERHEAD * len(own) for own in images)
        return missing + _INDEX_BYTES * len(self.source) + tarfile.RECORDSIZE * len(images)

    def begin(self) -> None:
        """Make the target one of these images and settings."""
        marked.make(self.partial)
        for path in self.partial.iterdir():
            if is_left_over(path.name):
                path.unlink(missing_ok=True)
        self.put(self.settings_path(), json.dumps(self.meta.settings(), indent=1).encode())

    def settings_path(self) -> Path:
        """Tells what a target was begun with."""
        return self.partial / "settings.json"

    def is_good(self, expected: tuple[int, str]) -> tuple[int, bool]:
        """Whether the shard of this number has this SHA-256."""
        shard, digest = expected
        return shard, file_sha256(self.path(shard)) == digest

    def write(self, shard: int, expected: str | None = None) -> tuple[int, int]:
        """Write one shard and its record; return its number and bytes.

        Raises:
            UserError: an image cannot be read or encoded; the shard has not the SHA-256 `expected`;
                no room.
        """
        path = self.path(shard)
        try:
            with replacing(path, self.partial) as file:
                record = _pack(self, shard, file)
                if expected not in (None, record.sha256):
                    raise UserError(
                        f"target: {path} was damaged, and came out otherwise when made again: the "
                        "source has changed; make all shards again in another folder"
                    )
        except OSError as error:
            raise marked.unwritable(path, error) from error
        self.put(self._record_path(shard), json.dumps(asdict(record)).encode())
        return shard, record.bytes

    def finish(self) -> None:
        """Join the records to the index; the description comes last."""
        images, source, meta = len(self.source), self.source, self.meta
        columns: dict[str, NDArray[np.generic]] = {
            name: np.empty(images, dtype=kind) for name, kind in COLUMNS.items()
        }
        for shard, indices in enumerate(self.indices):
            record = self.record(shard)
            assert record is not None
            columns["shard"][indices] = shard
            columns["offset"][indices] = record.offset
            columns["length"][indices] = record.length
            meta.shard_bytes.append(record.bytes)
            meta.shard_sha256.append(record.sha256)
        columns["label"] = source.labels
        columns["name_end"], columns["names"] = source.names.ends, source.names.text
        if self.recompression is not None:
            sizes, labels = columns["length"].tolist(), source.labels.tolist()
            rows = zip(source.names, sizes, labels, strict=True)
            meta.fingerprint = content_fingerprint(meta.classes, rows)
        for name, column in columns.items():
            content = io.BytesIO()
            np.save(content, column.astype(COLUMNS[name], copy=False))
            meta.index_sha256[name] = hashlib.sha256(content.getbuffer()).hexdigest()
            self.put(self.target / column_file(self.split, name), content.getbuffer())
        self.put(self.target / f"{self.split}.sha256", meta.sha256sums().encode())
        self.put(self.description, meta.as_json().encode())

    def put(self, path: Path, content: bytes | memoryview) -> None:
        """Write a small file so that its name means it is whole.

        Raises:
            UserError: it cannot be written; what was there is left.
        """
        try:
            path.parent.mkdir(exist_ok=True)
            with replacing(path, self.partial) as file:
                file.write(content)
        except OSError as error:
            raise marked.unwritable(path, error) from error

    def _record_path(self, shard: int) -> Path:
        return self.partial / f"{shard:06d}.json"


def _pack(job: Job, shard: int, file: IO[bytes]) -> Record:
    """Write the images of one shard as a tar file."""
    out, offsets, lengths = _Hashing(file), [], []
    with tarfile.open(
        fileobj=cast(IO[bytes], out),
        mode="w",
        # The plain old format: headers of one block, the same bytes from every version.
        format=tarfile.USTAR_FORMAT,
    ) as tar:
        for index in job.indices[shard].tolist():
            data = _content(job, index)
            key = member_key(index, job.source.names[index])
            offsets.append(tar.offset + tarfile.BLOCKSIZE)
            lengths.append(len(data))
            _add(tar, f"{key}.jpg", data)
            _add(tar, f"{key}.cls", b"%d" % job.source.labels[index])
    return Record(out.size, out.digest.hexdigest(), offsets, lengths)


def _content(job: Job, index: int) -> bytes:
    """The bytes to store for one image."""
    source, name = job.source, job.source.name(index)
    try:
        data = source.read(index)
    except OSError as error:
        raise UserError(f"source: {name} cannot be read: {first_line(error)}") from error
    if len(data) != source.sizes[index]:
        raise UserError(f"source: {name} changed while it was read; call again")
    if job.recompression is None:
        return data
    try:
        return job.recompression.encode(data, name)
    except UnreadableImage as error:
        raise UserError(
            f"source: {error.name} cannot be encoded again: {error.reason}; repair or remove "
            "it, or keep the images' own bytes"
        ) from error


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


class _Hashing:
    """A file that knows the size and the SHA-256 of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size
