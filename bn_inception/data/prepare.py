"""Making shards of a data set: see `shards` for what they are.

Work is done shard by shard, so it can be killed at any time: a shard that is finished lies under
its own name with a record beside it, is checked against that record by the next call, and is not
made again. What is written depends on the images and the settings alone: the same bytes come out
however often the work was interrupted and however many processes did it.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from bn_inception.data import archives
from bn_inception.data.decode import UnreadableImage, decode
from bn_inception.data.fingerprint import content_fingerprint
from bn_inception.data.order import stored_order
from bn_inception.data.parallel import Progress, processes_of, unordered
from bn_inception.data.shards import (
    COLUMNS,
    ORIGINAL,
    ShardMeta,
    ShardSource,
    damaged_files,
    file_sha256,
    member_key,
    read_meta,
    shard_file,
)
from bn_inception.data.source import (
    DataConfig,
    DataKind,
    FolderSource,
    ImageSource,
    PackedNames,
    open_folder,
    open_sources,
)
from bn_inception.data.target import make_folder, replace_file, unwritable
from bn_inception.errors import UserError

DEFAULT_QUALITY = 90
SPLITS = ("train", "val")
LAYOUTS = (
    "expected train/ and val/ with class folders, or "
    f"{archives.TRAIN_TAR}, {archives.VAL_TAR} and {archives.DEVKIT}.tar.gz, or imagenet-1k's "
    "train-*.parquet and validation-*.parquet"
)

# What a shard holds beside an image: two headers, the label, and padding to whole blocks.
_TAR_OVERHEAD = 4 * tarfile.BLOCKSIZE
_JPEG_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_INDEX_BYTES = 96  # an image; the columns and a long name


@dataclass
class PrepareConfig:
    """What is made of what.

    Attributes:
        source: a folder in one of `LAYOUTS`.
        target: the folder that the shards are written to.
        shorter_side: encode images again whose shorter side is longer than this, in pixels; None
            keeps every image's own bytes.
        quality: JPEG quality of those, 1 to 100; None is `DEFAULT_QUALITY`.
        shard_size: images in a shard.
        workers: processes; 0 works in this one, None is as many as cores.
    """

    source: str
    target: str
    shorter_side: int | None = None
    quality: int | None = None
    shard_size: int = 1251
    workers: int | None = None

    def __post_init__(self) -> None:
        for key, value in (("source", self.source), ("target", self.target)):
            if not value.strip():
                raise UserError(f"{key}: empty; give a folder")
        if self.shorter_side is not None and self.shorter_side < 1:
            raise UserError(f"shorter_side: {self.shorter_side} is not 1 or more pixels")
        if self.quality is not None and self.shorter_side is None:
            raise UserError(
                f"quality: {self.quality} is not read where images keep their own bytes; set "
                "shorter_side=N too"
            )
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"quality: {self.quality} is not between 1 and 100")
        if self.shard_size < 1:
            raise UserError(f"shard_size: {self.shard_size} is not 1 or more images")
        if self.workers is not None and self.workers < 0:
            raise UserError(f"workers: {self.workers} is negative; give 0 or more, or null")


@dataclass(frozen=True)
class Recompression:
    """Images encoded again, smaller.

    Attributes:
        shorter_side: in pixels; images whose shorter side is not longer keep their own bytes.
        quality: of the JPEG, 1 to 100.
    """

    shorter_side: int
    quality: int

    def describe(self) -> str:
        """All that the result depends on, versions included."""
        turbo = features.version("libjpeg_turbo")
        return (
            f"shorter side {self.shorter_side}, JPEG quality {self.quality}, 4:2:0, "
            f"optimized, restart markers, Lanczos, "
            f"Pillow {features.version('pil')}, libjpeg {turbo or features.version('jpg')}"
        )

    def encode(self, data: bytes, name: str) -> bytes:
        """The bytes to store for an image's own bytes.

        Raises:
            UnreadableImage: see `decode`; or no JPEG holds what would be written.
        """
        image = decode(data, name)
        width, height = image.size
        side = self.shorter_side
        if min(width, height) <= side:
            return data
        scale = side / min(width, height)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        if max(size) > _JPEG_SIDE:
            raise UnreadableImage(
                name,
                f"{width:,} x {height:,} pixels would become {size[0]:,} x {size[1]:,}, and a JPEG "
                f"holds {_JPEG_SIDE:,} a side",
            )
        out = io.BytesIO()
        try:
            image.resize(size, Image.Resampling.LANCZOS).save(
                out,
                "JPEG",
                quality=self.quality,
                subsampling="4:2:0",
                optimize=True,
                restart_marker_blocks=_restart_interval(size[0]),
            )
        except (OSError, ValueError) as error:
            raise UnreadableImage(name, f"no JPEG could be written: {error}") from error
        return out.getvalue()


def _restart_interval(width: int) -> int:
    """MCUs (16 x 16 pixels) between restart markers, so that each row of them begins with one.

    With markers `data.jpeg` gives a decoder the neighbourhood of a crop alone; they take about 2 %
    of the bytes (4 % where a row can be divided into single MCUs only).
    """
    across = -(-width // 16)
    return next(mcus for mcus in (2, 3, 1) if across % mcus == 0)


def _recompression(config: PrepareConfig) -> Recompression | None:
    if config.shorter_side is None:
        return None
    quality = DEFAULT_QUALITY if config.quality is None else config.quality
    return Recompression(config.shorter_side, quality)


def _encoding(recompression: Recompression | None) -> str:
    return ORIGINAL if recompression is None else recompression.describe()


class StoredImages(ImageSource, Protocol):
    """An image source that knows sizes and names before anything is read."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every image, shape (images,)."""

    @property
    def names(self) -> PackedNames:
        """Paths of the images below the split's folder."""


@dataclass(frozen=True)
class Prepared:
    """What became of one split.

    Attributes:
        split: "train" or "val".
        images: in all its shards.
        shards: how many there are.
        bytes: of all shards.
        written: images of the shards that this call wrote; the others were there and were checked.
        written_bytes: of those shards.
        seconds: that writing took.
        processes: that wrote.
    """

    split: str
    images: int
    shards: int
    bytes: int
    written: int
    written_bytes: int
    seconds: float
    processes: int


def prepare(
    config: PrepareConfig, say: Callable[[str], None], progress: Progress
) -> list[Prepared]:
    """Make, complete or check the shards of every split that the source has.

    Args:
        config: what of what.
        say: told what takes long.
        progress: told how far it is.

    Returns:
        One entry a split.

    Raises:
        UserError: the source is not understood, or an image of it cannot be read; the target holds
            something else, is being written by another process, or has no room.
    """
    target, source = Path(config.target).expanduser(), Path(config.source).expanduser()
    layout = _Layout.of(source)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"target: {target} cannot be created ({error.strerror})") from error
    with _told_when_stopped(say), _locked(target):
        spool = target / "spool"
        origins = {
            split: [archives.parquet_identity(path) for path in paths]
            for split, paths in layout.parquet.items()
        }
        checked = _sound_shards_of_parquet(origins, target, config, say, progress)
        if checked:
            for split in origins:
                _remove_left_over(target, split)
            shutil.rmtree(spool, ignore_errors=True)
            return checked
        whole = bool(origins) and all((target / f"{split}.json").exists() for split in origins)
        try:
            sources = _open(layout, spool, config.workers, say, progress)
            jobs = [
                _Job.of(images, split, target, config, origins.get(split, []))
                for split, images in sources.items()
            ]
            for job in jobs:
                job.check_target()
            _check_room(target, sum(job.missing_bytes() for job in jobs))
            prepared = [_run(job, config.workers, say, progress) for job in jobs]
        except UserError:
            if whole:  # another call has nothing to go on with
                shutil.rmtree(spool, ignore_errors=True)
            raise
        finally:
            for split in SPLITS:
                _remove_left_over(target, split)
        shutil.rmtree(spool, ignore_errors=True)
    return prepared


@dataclass(frozen=True)
class _Layout:
    """What a source holds; one of the three is not empty. Paths by split.

    Attributes:
        source: the folder.
        tars: ImageNet's archives.
        parquet: imagenet-1k's files.
        folders: of class folders.
    """

    source: Path
    tars: dict[str, Path]
    parquet: dict[str, list[Path]]
    folders: dict[str, Path]

    @staticmethod
    def of(source: Path) -> "_Layout":
        """See what is there, before anything is written."""
        if not source.is_dir():
            what = "is not a folder" if source.exists() else "does not exist"
            raise UserError(f"source: {source} {what}; {LAYOUTS}")
        tars = {"train": source / archives.TRAIN_TAR, "val": source / archives.VAL_TAR}
        tars = {split: path for split, path in tars.items() if path.exists()}
        parquet = archives.parquet_files(source)
        folders = {split: source / split for split in SPLITS if (source / split).is_dir()}
        kinds = [bool(tars), bool(parquet), bool(folders)]
        if sum(kinds) != 1:
            found = "nothing of the kind" if not any(kinds) else "several of these"
            raise UserError(f"source: {source} holds {found}; {LAYOUTS}")
        return _Layout(source, tars, parquet, folders)


def _open(
    layout: _Layout,
    spool: Path,
    workers: int | None,
    say: Callable[[str], None],
    progress: Progress,
) -> dict[str, StoredImages]:
    """The splits that the source has."""
    source = layout.source
    if layout.folders:
        return _open_folders(source, layout.folders)
    sources: dict[str, StoredImages] = {}
    if layout.parquet:
        # What the images take, once unpacked and once in shards, less what is there.
        needed = -sum(path.stat().st_size for path in spool.parent.glob("*.tar"))
        for path in (path for paths in layout.parquet.values() for path in paths):
            times = 1 if archives.is_unpacked(spool, path) else 2
            needed += times * archives.unpacked_bytes(path)
        _check_room(spool.parent, needed)
        for split, files in layout.parquet.items():
            sources[split] = archives.open_parquet(files, spool, workers, progress)
    else:
        for split, path in layout.tars.items():
            say(f"{split}: reading the headers of {path}")
            if split == "train":
                sources[split] = archives.open_train_tar(path, progress)
            else:
                sources[split] = archives.open_val_tar(path, _val_labels(source))
    if len(sources) == 2 and sources["train"].classes != sources["val"].classes:
        raise UserError(
            f"source: {source}: training and validation images are of different classes "
            f"({len(sources['train'].classes)} and {len(sources['val'].classes)}); give both "
            "of one data set"
        )
    return sources


def _origin_path(target: Path, split: str) -> Path:
    """Which parquet files shards were made of: hidden, for it is no part of the shards."""
    return target / f".{split}.parquet.json"


def _read_origin(target: Path, split: str) -> list[str]:
    try:
        return list(json.loads(_origin_path(target, split).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return []  # not known: then the images are compared


def _sound_shards_of_parquet(
    origins: dict[str, list[str]],
    target: Path,
    config: PrepareConfig,
    say: Callable[[str], None],
    progress: Progress,
) -> list[Prepared]:
    """What there is, if nothing is left to do: then the images need not be unpacked again.

    Empty where anything is missing, damaged, of other settings, or of other parquet files.
    """
    splits = [split for split in SPLITS if split in origins]
    if not splits or not all((target / f"{split}.json").exists() for split in splits):
        return []
    if any(_read_origin(target, split) != origins[split] for split in splits):
        return []
    prepared: list[Prepared] = []
    for split in splits:
        try:
            images = ShardSource(str(target), split)
        except UserError:
            return []
        meta = images.meta
        size = min(config.shard_size, meta.images)
        if (meta.shard_size, meta.encoding) != (size, _encoding(_recompression(config))):
            return []
        shown = partial(progress, f"{split}: finished files checked")
        if damaged_files(images, config.workers, shown):
            return []
        _restore_sums(target, meta, say)
        total = sum(meta.shard_bytes)
        shards = len(meta.shard_bytes)
        prepared.append(Prepared(split, meta.images, shards, total, 0, 0, 0.0, 0))
    return prepared


def _open_folders(source: Path, folders: dict[str, Path]) -> dict[str, StoredImages]:
    try:
        if len(folders) == 1:
            return {split: open_folder(folder) for split, folder in folders.items()}
        annotated = (folders["val"] / "val_annotations.txt").is_file()
        kind = DataKind.tiny_imagenet if annotated else DataKind.folder
        opened = open_sources(DataConfig(kind=kind, root=str(source)))
    except UserError as error:
        raise UserError(str(error).replace("data.root", "source", 1)) from error
    sources: dict[str, StoredImages] = {}
    for split, images in zip(SPLITS, (opened.train, opened.validation), strict=True):
        assert isinstance(images, FolderSource)
        sources[split] = images
    return sources


def _val_labels(source: Path) -> Path:
    names = ("val_classes.txt", f"{archives.DEVKIT}.tar.gz", archives.DEVKIT)
    for name in names:
        if (source / name).exists():
            return source / name
    raise UserError(
        f"source: {source} has {archives.VAL_TAR} but nothing that tells its classes; put "
        f"{names[1]} beside it, or {names[0]} with the class of each image on a line"
    )


@dataclass(frozen=True)
class _Record:
    """A finished shard; lists have one entry an image, in the order of the shard."""

    bytes: int
    sha256: str
    offset: list[int]
    length: list[int]


@dataclass(frozen=True)
class _Job:
    """The shards of one split; knows where everything lies."""

    source: StoredImages
    split: str
    target: Path
    recompression: Recompression | None
    shard_size: int
    stored: NDArray[np.int64]
    source_fingerprint: str
    origin: list[str]

    @staticmethod
    def of(
        source: StoredImages, split: str, target: Path, config: PrepareConfig, origin: list[str]
    ) -> "_Job":
        return _Job(
            source,
            split,
            target,
            _recompression(config),
            min(config.shard_size, len(source)),
            stored_order(len(source)),
            source.fingerprint(),
            origin,
        )

    @property
    def shards(self) -> int:
        return -(-len(self.source) // self.shard_size)

    @property
    def partial(self) -> Path:
        """See `_partial`."""
        return _partial(self.target, self.split)

    def path(self, shard: int) -> Path:
        return self.target / shard_file(self.split, shard)

    def record_path(self, shard: int) -> Path:
        return self.partial / f"{shard:06d}.json"

    def indices(self, shard: int) -> NDArray[np.int64]:
        return self.stored[shard * self.shard_size : (shard + 1) * self.shard_size]

    def settings(self) -> dict[str, str]:
        """What decides every byte of the shards."""
        return {
            "source images": self.source_fingerprint,
            "shard_size": str(self.shard_size),
            "encoding": _encoding(self.recompression),
        }

    def is_of_other_files(self) -> bool:
        """Whether what lies in the target was made of other parquet files, or nobody knows."""
        return _read_origin(self.target, self.split) != self.origin

    def write_origin(self) -> None:
        """Note the parquet files: what lies in the target is of their images."""
        path = _origin_path(self.target, self.split)
        if self.origin:
            replace_file(path, json.dumps(self.origin, indent=1).encode())
        else:
            path.unlink(missing_ok=True)

    def is_whole(self) -> bool:
        return (self.target / f"{self.split}.json").exists()

    def check_target(self) -> None:
        """Refuse shards of other images or settings, finished or begun."""
        plan = self.partial / "settings.json"
        shards = f"{self.target / self.split}-*.tar"
        if self.is_whole():
            try:
                meta = read_meta(self.target, self.split)
            except UserError as error:
                reason = str(error).partition("; ")[0].removeprefix("data.root: ")
                raise UserError(
                    f"target: {reason}; remove it and {shards} to make the {self.split} shards "
                    "again, or choose another folder"
                ) from error
            there = {
                "source images": meta.source_fingerprint,
                "shard_size": str(meta.shard_size),
                "encoding": meta.encoding,
            }
        elif plan.exists():
            there = _read_settings(plan)
        else:
            if any(self.target.glob(f"{self.split}-*.tar")):
                raise UserError(
                    f"target: {self.target} holds {self.split} shards without their "
                    f"{self.split}.json: not of this program, or it was deleted; choose another "
                    f"folder, or remove {shards} to make them again"
                )
            return
        differing = [
            f"{key} is {value[:80]!r} here, {str(there.get(key))[:80]!r} there"
            for key, value in self.settings().items()
            if there.get(key) != value
        ]
        if differing:
            raise UserError(
                f"target: {self.target} holds {self.split} shards made otherwise: "
                f"{'; '.join(differing)}; choose another folder, or remove it"
            )

    def begin(self) -> None:
        """Make the target one of these images and settings."""
        make_folder(self.partial)
        replace_file(self.partial / "settings.json", json.dumps(self.settings(), indent=1).encode())
        if self.is_of_other_files():
            # Names and sizes agree, so nothing else would tell these records from others.
            for path in self.partial.glob("[0-9]*.json"):
                path.unlink()
        self.write_origin()

    def missing_bytes(self) -> int:
        """At most so many bytes are still to be written."""
        if self.is_whole():
            return 0
        sizes = self.source.sizes
        images = [
            self.indices(shard)
            for shard in range(self.shards)
            if not self.record_path(shard).exists()
        ]
        missing = sum(int(sizes[part].sum()) + _TAR_OVERHEAD * len(part) for part in images)
        return missing + _INDEX_BYTES * len(self.source) + tarfile.RECORDSIZE * len(images)


def _remove_left_over(target: Path, split: str) -> None:
    """Remove what a process that was ended had begun to write, or had no time to remove."""
    for pattern in (f".{split}[-.]*.tmp", f"..{split}.*.tmp", f"{split}.index/.*.npy.*.tmp"):
        for path in target.glob(pattern):
            path.unlink(missing_ok=True)
    if (target / f"{split}.json").exists():
        shutil.rmtree(_partial(target, split), ignore_errors=True)


def _partial(target: Path, split: str) -> Path:
    """Records of finished shards; lies there until all are."""
    return target / f"{split}.partial"


def _run(
    job: _Job, workers: int | None, say: Callable[[str], None], progress: Progress
) -> Prepared:
    """Bring one split to its end."""
    _remove_left_over(job.target, job.split)
    todo = _unfinished(job, workers, say, progress)
    started = time.monotonic()
    written = written_bytes = 0
    left = sum(len(job.indices(shard)) for shard in todo)
    progress(f"{job.split}: images", 0, left)
    if not job.is_whole():
        job.begin()
        for shard, size in unordered(partial(_write_shard, job, []), todo, workers):
            written += len(job.indices(shard))
            written_bytes += size
            progress(f"{job.split}: images", written, left)
        _finish(job)
    else:
        meta = read_meta(job.target, job.split)
        for shard, size in unordered(partial(_write_shard, job, meta.shard_sha256), todo, workers):
            written += len(job.indices(shard))
            written_bytes += size
            progress(f"{job.split}: images", written, left)
        job.write_origin()
        _restore_sums(job.target, meta, say)
    seconds = time.monotonic() - started
    ShardSource(str(job.target), job.split)
    meta = read_meta(job.target, job.split)
    total = sum(meta.shard_bytes)
    processes = min(processes_of(workers), len(todo))
    return Prepared(
        job.split, meta.images, job.shards, total, written, written_bytes, seconds, processes
    )


def _restore_sums(target: Path, meta: ShardMeta, say: Callable[[str], None]) -> None:
    """Write the file of checksums again where it is not what the description says."""
    path, content = target / f"{meta.split}.sha256", meta.sha256sums().encode()
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    say(f"{path} is missing or damaged: writing it again")
    replace_file(path, content)


def _unfinished(
    job: _Job, workers: int | None, say: Callable[[str], None], progress: Progress
) -> list[int]:
    """Shards that must be written; all that are there are compared with their checksums."""
    expected: dict[int, str] = {}
    if job.is_whole():
        meta = read_meta(job.target, job.split)
        expected = dict(enumerate(meta.shard_sha256))
        folder = job.target / f"{job.split}.index"
        for column, digest in meta.index_sha256.items():
            if file_sha256(folder / f"{column}.npy") != digest:
                # The records it was made of are gone, so it takes all shards.
                say(f"{folder}/{column}.npy is damaged: making all {job.split} shards again")
                job.begin()  # first, for shards without a description are taken for others'
                (job.target / f"{job.split}.json").unlink()
                return list(range(job.shards))
    elif not job.is_of_other_files():
        for shard in range(job.shards):
            record = _read_record(job.record_path(shard))
            if record is not None:
                expected[shard] = record.sha256
    good: set[int] = set()
    progress(f"{job.split}: finished shards checked", 0, len(expected))
    checks = unordered(partial(_is_good, job), expected.items(), workers)
    for done, (shard, is_good) in enumerate(checks, 1):
        progress(f"{job.split}: finished shards checked", done, len(expected))
        if is_good:
            good.add(shard)
        else:
            say(f"{job.path(shard)} is missing or damaged: making it again")
    if job.is_whole() and job.is_of_other_files():
        _compare_images(job, {shard: expected[shard] for shard in good}, workers, progress)
    return [shard for shard in range(job.shards) if shard not in good]


def _compare_images(
    job: _Job, expected: dict[int, str], workers: int | None, progress: Progress
) -> None:
    """Refuse images that do not give the shards that are there; names and sizes agree."""
    what = f"{job.split}: shards compared with the images"
    progress(what, 0, len(expected))
    digests = unordered(partial(_digest, job), expected, workers)
    for done, (shard, digest) in enumerate(digests, 1):
        if digest != expected[shard]:
            raise UserError(
                f"target: {job.path(shard)} holds other images than the source, of the same names "
                "and sizes: the source is another, or has changed; choose another folder, or "
                "remove it"
            )
        progress(what, done, len(expected))


def _digest(job: _Job, shard: int) -> tuple[int, str]:
    """Number and SHA-256 of a shard as it would be written."""
    with open(os.devnull, "wb") as nothing:
        return shard, _pack(job, shard, nothing).sha256


def _is_good(job: _Job, expected: tuple[int, str]) -> tuple[int, bool]:
    shard, digest = expected
    return shard, file_sha256(job.path(shard)) == digest


def _read_settings(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"target: {path} cannot be read ({error}); remove {path.parent} to begin again"
        ) from error


def _read_record(path: Path) -> _Record | None:
    try:
        return _Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or not whole: the shard is made again


def _write_shard(job: _Job, expected: list[str], shard: int) -> tuple[int, int]:
    """Write one shard and its record; return its number and bytes.

    Args:
        job: of the split.
        expected: SHA-256 of every shard; empty where there are none yet.
        shard: its number.
    """
    path = job.path(shard)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                record = _pack(job, shard, file)
                file.flush()
                os.fsync(file.fileno())
            if expected and record.sha256 != expected[shard]:
                raise UserError(
                    f"target: {path} was damaged, and came out otherwise when made again: the "
                    "source has changed; make all shards again in another folder"
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    if job.partial.exists():
        replace_file(job.record_path(shard), json.dumps(asdict(record)).encode())
    return shard, record.bytes


def _pack(job: _Job, shard: int, file: IO[bytes]) -> _Record:
    """Write the images of one shard as a tar file."""
    out = _Hashing(file)
    offsets: list[int] = []
    lengths: list[int] = []
    # The plain old format: headers of one block, the same bytes from every version.
    with tarfile.open(fileobj=cast(IO[bytes], out), mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in job.indices(shard).tolist():
            data = _content(job, index)
            key = member_key(index, job.source.names[index])
            offsets.append(tar.offset + tarfile.BLOCKSIZE)
            lengths.append(len(data))
            _add(tar, f"{key}.jpg", data)
            _add(tar, f"{key}.cls", b"%d" % job.source.labels[index])
    return _Record(out.size, out.digest.hexdigest(), offsets, lengths)


def _content(job: _Job, index: int) -> bytes:
    """The bytes to store for one image."""
    source = job.source
    try:
        data = source.read(index)
    except OSError as error:
        raise UserError(
            f"source: {source.name(index)} cannot be read: {error.strerror or error}"
        ) from error
    if len(data) != source.sizes[index]:
        raise UserError(f"source: {source.name(index)} changed while it was read; call again")
    if job.recompression is None:
        return data
    try:
        return job.recompression.encode(data, source.name(index))
    except UnreadableImage as error:
        raise UserError(
            f"source: {error.name} cannot be encoded again: {error.reason}; repair or remove it, "
            "or keep the images' own bytes"
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


def _finish(job: _Job) -> None:
    """Join the records to the index; the description comes last."""
    images = len(job.source)
    columns: dict[str, NDArray[np.generic]] = {
        name: np.empty(images, dtype=kind) for name, kind in COLUMNS.items()
    }
    meta = ShardMeta(
        split=job.split,
        classes=list(job.source.classes),
        images=images,
        shard_size=job.shard_size,
        encoding=job.settings()["encoding"],
        source_fingerprint=job.source_fingerprint,
        fingerprint=job.source_fingerprint,
    )
    for shard in range(job.shards):
        record = _read_record(job.record_path(shard))
        assert record is not None
        indices = job.indices(shard)
        columns["shard"][indices] = shard
        columns["offset"][indices] = record.offset
        columns["length"][indices] = record.length
        meta.shard_bytes.append(record.bytes)
        meta.shard_sha256.append(record.sha256)
    columns["label"] = job.source.labels
    columns["name_end"] = job.source.names.ends
    columns["names"] = np.frombuffer(job.source.names.text, dtype=np.uint8)
    if job.recompression is not None:
        names, sizes = job.source.names, columns["length"].tolist()
        labels = job.source.labels.tolist()
        rows = ((names[i], sizes[i], labels[i]) for i in range(images))
        meta.fingerprint = content_fingerprint(meta.classes, rows)

    folder = job.target / f"{job.split}.index"
    make_folder(folder)
    for name, column in columns.items():
        content = io.BytesIO()
        np.save(content, column.astype(COLUMNS[name], copy=False))
        meta.index_sha256[name] = hashlib.sha256(content.getbuffer()).hexdigest()
        replace_file(folder / f"{name}.npy", content.getbuffer())
    replace_file(job.target / f"{job.split}.sha256", meta.sha256sums().encode())
    replace_file(job.target / f"{job.split}.json", meta.as_json().encode())
    shutil.rmtree(job.partial, ignore_errors=True)  # else the next call does it


def _check_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f"target: {target} needs up to {needed / 1e9:,.1f} GB more, {free / 1e9:,.1f} GB are "
            "free; make room or choose another folder"
        )


@contextmanager
def _told_when_stopped(say: Callable[[str], None]) -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        say("stopped; the same call goes on from here: what is finished is kept")
        raise


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep other processes out; the lock ends with this process, however it ends."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context((target / ".lock").open("w"))
            # Not flock: forked processes would inherit it and keep it when this one is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"target: {target} is being written by another process") from error
        except OSError as error:
            raise UserError(f"target: {target} cannot be written ({error.strerror})") from error
        yield
