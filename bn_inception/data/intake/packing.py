"""Writing the shards of one split; `data.shards` describes their format.

The work can be killed at any time. A file is written in `<split>.partial/` and moved to its place
when it is complete. Each finished shard has a record in that folder.
"""

import hashlib
import io
import json
import tarfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

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
from bn_inception.data.source import ImageSource, content_fingerprint
from bn_inception.errors import UserError
from bn_inception.files import first_line, is_left_over, read_json, replacing

# Bytes beside each image: two headers, the label, and padding to whole blocks.
_TAR_OVERHEAD = 4 * tarfile.BLOCKSIZE
_INDEX_BYTES = 96  # an image; the columns and a long name


@dataclass(frozen=True)
class Record:
    """A finished shard; lists have one entry for each image, in the order of the shard."""

    bytes: int
    sha256: str
    offset: list[int]
    length: list[int]


class Job:
    """The shards of one split, and the paths of all their files."""

    def __init__(
        self,
        source: ImageSource,
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

    def finished(self) -> dict[int, str]:
        """SHA-256 of the shards with a complete record, by number."""
        found = {}
        for shard in range(len(self.indices)):
            with suppress(OSError, ValueError, TypeError):
                found[shard] = self._record(shard).sha256
        return found

    def _record(self, shard: int) -> Record:
        return Record(**read_json(self._record_path(shard)))

    def missing_bytes(self) -> int:
        """Upper bound of the bytes still to be written."""
        if self.description.exists():
            return 0
        sizes = self.source.sizes
        images = [own for n, own in enumerate(self.indices) if not self._record_path(n).exists()]
        missing = sum(int(sizes[own].sum()) + _TAR_OVERHEAD * len(own) for own in images)
        return missing + _INDEX_BYTES * len(self.source) + tarfile.RECORDSIZE * len(images)

    def begin(self) -> None:
        """Record in the target which images and settings it is for."""
        marked.make(self.partial)
        for path in self.partial.iterdir():
            if is_left_over(path.name):
                path.unlink(missing_ok=True)
        self.put(self.settings_path(), json.dumps(self.meta.settings(), indent=1).encode())

    def settings_path(self) -> Path:
        """The file with the settings that a target was begun with."""
        return self.partial / "settings.json"

    def write(self, expected: dict[int, str], shard: int) -> int:
        """Write one shard and its record; return its bytes.

        Raises:
            UserError: an image cannot be read or encoded; the shard's SHA-256 differs from the one
                in `expected`, if any; the disk is full.
        """
        path = self.path(shard)
        with marked.writing(path), replacing(path, self.partial) as file:
            offsets, lengths = self._pack(shard, file)
            file.flush()
            record = Record(file.tell(), file_sha256(file.name), offsets, lengths)
            if expected.get(shard, record.sha256) != record.sha256:
                raise UserError(
                    f"target: {path} was damaged, and came out otherwise when made again: the "
                    "source has changed; make all shards again in another folder"
                )
        self.put(self._record_path(shard), json.dumps(asdict(record)).encode())
        return record.bytes

    def finish(self) -> None:
        """Join the records into the index; write the description last."""
        images, source, meta = len(self.source), self.source, self.meta
        columns: dict[str, NDArray[np.generic]] = {
            name: np.empty(images, dtype=kind) for name, kind in COLUMNS.items()
        }
        for shard, indices in enumerate(self.indices):
            record = self._record(shard)
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
        self.put_sums(meta)
        self.put(self.description, meta.as_json().encode())

    def put_sums(self, meta: ShardMeta) -> None:
        """Write the file of checksums."""
        self.put(self.target / f"{self.split}.sha256", meta.sha256sums().encode())

    def put(self, path: Path, content: bytes | memoryview) -> None:
        """Write a small file, so that it is complete as soon as it has its name.

        Raises:
            UserError: it cannot be written; an earlier file is kept.
        """
        with marked.writing(path):
            path.parent.mkdir(exist_ok=True)
            with replacing(path, self.partial) as file:
                file.write(content)

    def _record_path(self, shard: int) -> Path:
        return self.partial / f"{shard:06d}.json"

    def _pack(self, shard: int, file: IO[bytes]) -> tuple[list[int], list[int]]:
        """Write the images of one shard as a tar file; return their offsets and lengths in it."""
        offsets, lengths = [], []
        # The plain old format: headers of one block, and the same bytes from every Python version.
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index in self.indices[shard].tolist():
                data = self._content(index)
                offsets.append(tar.offset + tarfile.BLOCKSIZE)
                lengths.append(len(data))
                key = member_key(index, self.source.names[index])
                label = b"%d" % self.source.labels[index]
                for name, content in ((f"{key}.jpg", data), (f"{key}.cls", label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        return offsets, lengths

    def _content(self, index: int) -> bytes:
        """The bytes to store for one image."""
        name = self.source.name(index)
        try:
            data = self.source.read(index)
        except OSError as error:
            raise UserError(f"source: {name} cannot be read: {first_line(error)}") from error
        if len(data) != self.source.sizes[index]:
            raise UserError(f"source: {name} changed while it was read; call again")
        try:
            return self.recompression.encode(data, name) if self.recompression else data
        except UnreadableImage as error:
            raise UserError(
                f"source: {error.name} cannot be encoded again: {error.reason}; repair or remove "
                "it, or keep the images' own bytes"
            ) from error
