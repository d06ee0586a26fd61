"""Making shards of a data set: every source, interrupted or not, gives the same bytes.

A file has its name when it is complete, so the work can be killed at any time. The description is
there from the beginning, and gets the checksums at the end.
"""

import hashlib
import io
import shutil
import tarfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from bn_inception.data import shards
from bn_inception.data.intake import archives
from bn_inception.data.opening import open_folder
from bn_inception.data.parallel import Progress, cores, produced
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError, require_at_least
from bn_inception.files import expanded, file_sha256, is_left_over, locked, refusing, replacing

LAYOUTS = (
    "expected train/ and val/ with class folders, or "
    f"{archives.TRAIN_TAR}, {archives.VAL_TAR} and {archives.DEVKIT}.tar.gz"
)


@dataclass
class PrepareConfig:
    """Source and target."""

    source: str  # a folder in one of `LAYOUTS`
    target: str  # the folder that the shards are written to
    shard_size: int = 1251  # images in a shard
    workers: int | None = None  # processes; 0 works in this one, None means one for each core

    def __post_init__(self) -> None:
        for key, value in (("source", self.source), ("target", self.target)):
            if not value.strip():
                raise UserError(f"{key}: empty; give a folder")
        require_at_least("shard_size", self.shard_size, 1)
        require_at_least("workers", self.workers, 0)


class Prepared(NamedTuple):
    """The result for one split."""

    split: str
    images: int
    shards: int
    bytes: int
    written: int  # images in the shards that this call wrote; the others were checked
    seconds: float


def prepare(
    config: PrepareConfig, say: Callable[[str], None], progress: Progress
) -> list[Prepared]:
    """Make, complete or check the shards of every split in the source; one entry for each."""
    workers = cores() if config.workers is None else config.workers
    target, source = expanded(config.target), expanded(config.source)
    files = _found(source)
    with _writing(target):
        target.mkdir(parents=True, exist_ok=True)
        try:
            with locked(target / ".lock", wait=False):
                splits = [
                    _Split(split, images, target, min(config.shard_size, len(images)))
                    for split, images in _opened(source, files, say).items()
                ]
                needed = sum(split.missing_bytes() for split in splits)
                free = shutil.disk_usage(target).free
                if needed > free:
                    raise UserError(
                        f"target: {target} needs up to {needed / 1e9:,.1f} GB more, "
                        f"{free / 1e9:,.1f} GB are free; make room or choose another folder"
                    )
                return [split.complete(workers, say, progress) for split in splits]
        except BlockingIOError as error:
            raise UserError(f"target: {target} is being written by another process") from error
        except KeyboardInterrupt:
            say("stopped; the same call goes on from here: what is finished is kept")
            raise


def _writing(target: Path) -> AbstractContextManager[None]:
    remedy = "make room and call again: what is finished is kept"
    return refusing(f"target: {target} cannot be written", remedy)


def _found(source: Path) -> dict[str, Path]:
    """The folder or archive of each split in the source."""
    if not source.is_dir():
        raise UserError(f"source: {source} is not a folder; {LAYOUTS}")
    tars = {"train": source / archives.TRAIN_TAR, "val": source / archives.VAL_TAR}
    archived = {split: path for split, path in tars.items() if path.exists()}
    folders = {split: source / split for split in tars if (source / split).is_dir()}
    if bool(archived) == bool(folders):
        what = "several of these" if folders else "nothing of the kind"
        raise UserError(f"source: {source} holds {what}; {LAYOUTS}")
    return archived or folders


def _opened(
    source: Path, files: dict[str, Path], say: Callable[[str], None]
) -> dict[str, ImageSource]:
    """The splits that the source has."""
    sources: dict[str, ImageSource] = {}
    for split, path in files.items():
        if path.is_dir():
            try:
                sources[split] = open_folder(path)
            except UserError as error:
                raise UserError(str(error).replace("data.root", "source", 1)) from error
            continue
        say(f"{split}: reading the headers of {path}")
        if split == "train":
            sources[split] = archives.open_train_tar(path)
        else:
            sources[split] = archives.open_val_tar(path, *archives.read_val_classes(source))
    classes = [images.classes for images in sources.values()]
    if classes[0] != classes[-1]:
        raise UserError(
            f"source: {source}: training and validation images are of different classes "
            f"({len(classes[0])} and {len(classes[-1])}); give both of one data set"
        )
    return sources


class _Split:
    """The shards of one split."""

    def __init__(self, name: str, source: ImageSource, target: Path, shard_size: int) -> None:
        self.name, self.source, self.target = name, source, target
        self.layout = shards.Layout(source.sizes, shard_size)
        index = io.BytesIO()
        np.save(index, shards.as_index(source))
        self.index = index.getvalue()
        self.about = shards.Description(
            split=name,
            classes=list(source.classes),
            images=len(source),
            shard_size=shard_size,
            fingerprint=source.fingerprint,
            index_sha256=hashlib.sha256(self.index).hexdigest(),
        )
        self.description = target / f"{name}.json"
        self.there = self._found()

    def path(self, shard: int) -> Path:
        return self.target / shards.shard_file(self.name, shard)

    def _found(self) -> shards.Description | None:
        """The description in the target; shards of other images or settings are refused."""
        where = f"target: {self.description}"
        remedy = (
            f"choose another folder, or remove {self.description} and "
            f"{self.target / self.name}-*.tar to make the {self.name} shards again"
        )
        try:
            there = shards.read_description(self.description, self.name, where, remedy)
        except FileNotFoundError:
            if any(self.target.glob(f"{self.name}-*.tar")):
                raise UserError(
                    f"{where} is missing beside {self.name} shards: they are not of this program, "
                    f"or it was deleted; {remedy}"
                ) from None
            return None
        for key in ("fingerprint", "images", "shard_size"):
            here, found = getattr(self.about, key), getattr(there, key)
            if here != found:
                raise UserError(
                    f"{where} is of shards made otherwise: {key} is {here} here, {found} there; "
                    f"{remedy}"
                )
        return there

    def missing_bytes(self) -> int:
        """Upper bound of the bytes still to be written."""
        sizes = (s for n, s in enumerate(self.layout.bytes) if not self.path(n).exists())
        return sum(sizes) + len(self.index)

    def complete(self, workers: int, say: Callable[[str], None], progress: Progress) -> Prepared:
        """Write the shards that are missing or damaged, then index, checksums and description."""
        started, what = time.monotonic(), f"{self.name}: images"
        for path in self.target.glob(f".{self.name}*"):
            if is_left_over(path.name):
                path.unlink(missing_ok=True)
        if self.there is None:
            self._put(self.description.name, self.about.as_json())
        expected = self.there.shard_sha256 if self.there else []

        images, done, written = len(self.source), 0, 0
        progress(what, 0, images)
        make = partial(self._complete_shard, expected)
        numbers = range(len(self.layout.shards))
        for shard, (digest, wrote) in enumerate(produced(make, numbers, workers)):
            self.about.shard_sha256.append(digest)
            done += len(self.layout.shards[shard])
            written += wrote
            if expected and wrote:
                say(f"{self.path(shard)} was missing or damaged: made again")
            progress(what, done, images)
        self._put(shards.index_file(self.name), self.index)
        self._put(f"{self.name}.sha256", self.about.sha256sums())
        self._put(self.description.name, self.about.as_json())
        shards.ShardSource(str(self.target), self.name)  # raises if they do not fit each other
        seconds = time.monotonic() - started
        return Prepared(self.name, images, len(numbers), sum(self.layout.bytes), written, seconds)

    def _put(self, name: str, content: str | bytes) -> None:
        with replacing(self.target / name) as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def _complete_shard(self, expected: list[str], shard: int) -> tuple[str, int]:
        """Write a shard, unless it is there; its SHA-256, and how many images were written."""
        # Of an unfinished split's shards nothing but the size is known.
        path, wanted = self.path(shard), expected[shard] if expected else None
        if path.is_file() and path.stat().st_size == self.layout.bytes[shard]:
            digest = file_sha256(path)
            if wanted in (None, digest):
                return digest, 0
        with _writing(self.target), replacing(path) as file:
            self._pack(shard, file)
            file.flush()
            digest = file_sha256(file.name)
            if wanted not in (None, digest):
                raise UserError(
                    f"target: {path} was damaged, and came out otherwise when made again: the "
                    "source has changed; make all shards again in another folder"
                )
        return digest, len(self.layout.shards[shard])

    def _pack(self, shard: int, file: IO[bytes]) -> None:
        # The plain old format: headers of one block, and the same bytes from every Python version.
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index in self.layout.shards[shard].tolist():
                key = shards.member_key(index, self.source.names[index])
                label = b"%d" % self.source.labels[index]
                for name, content in ((f"{key}.jpg", self._content(index)), (f"{key}.cls", label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))

    def _content(self, index: int) -> bytes:
        name = self.source.name(index)
        with refusing(f"source: {name} cannot be read", "repair or remove it"):
            data = self.source.read(index)
        if len(data) != self.source.sizes[index]:
            raise UserError(f"source: {name} changed while it was read; call again")
        return data
