"""Making shards of a data set: every source, interrupted or not, gives the same bytes.

The bytes depend only on images and settings, not on interruptions or the number of processes. The
next call checks a finished shard against its record and does not make it again.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bn_inception.data.config import DataConfig, DataKind
from bn_inception.data.description import ShardMeta, column_file, file_sha256, read_meta
from bn_inception.data.folders import open_folder, open_folders
from bn_inception.data.intake import archives, devkit, marked, parquet
from bn_inception.data.intake.packing import Job
from bn_inception.data.intake.recompression import Recompression
from bn_inception.data.parallel import Progress, cores, produced
from bn_inception.data.shards import ShardSource
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError
from bn_inception.files import first_line, locked, read_json

DEFAULT_QUALITY = 90
SPLITS = ("train", "val")
LAYOUTS = (
    "expected train/ and val/ with class folders, or "
    f"{archives.TRAIN_TAR}, {archives.VAL_TAR} and {devkit.DEVKIT}.tar.gz, or imagenet-1k's "
    "train-*.parquet and validation-*.parquet"
)


@dataclass
class PrepareConfig:
    """Source, target, and how images are stored."""

    source: str  # a folder in one of `LAYOUTS`
    target: str  # the folder that the shards are written to
    # encode images again whose shorter side is longer than this, in pixels; None keeps
    # every image's own bytes
    shorter_side: int | None = None
    quality: int | None = None  # JPEG quality of those, 1 to 100; None is `DEFAULT_QUALITY`
    shard_size: int = 1251  # images in a shard
    workers: int | None = None  # processes; 0 works in this one, None means one for each core

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

    def recompression(self) -> Recompression | None:
        """How images are encoded again; None if they keep their bytes."""
        if self.shorter_side is None:
            return None
        return Recompression(self.shorter_side, self.quality or DEFAULT_QUALITY)


@dataclass(frozen=True)
class Prepared:
    """The result for one split."""

    split: str  # "train" or "val"
    images: int  # in all its shards
    shards: int  # how many there are
    bytes: int  # of all shards
    # images of the shards that this call wrote; the others were there and were checked
    written: int
    written_bytes: int  # of those shards
    seconds: float  # that writing took
    processes: int  # that wrote


def prepare(
    config: PrepareConfig, say: Callable[[str], None], progress: Progress
) -> list[Prepared]:
    """Make, complete or check the shards of every split in the source; one entry for each.

    `say` gets a line about each thing that takes long.

    Raises:
        UserError: the source has an unknown layout or an unreadable image; the target has other
            contents, is being written by another process, or has no room.
    """
    workers = cores() if config.workers is None else config.workers
    target, source = Path(config.target).expanduser(), Path(config.source).expanduser()
    files = _found(source)
    spool = target / "spool"
    with ExitStack() as held:
        with marked.writing(target):
            target.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(locked(target / ".lock", wait=False))
            except BlockingIOError as error:
                raise UserError(f"target: {target} is being written by another process") from error
        for folder in (spool, *(target / f"{split}.partial" for split in SPLITS)):
            marked.refuse_foreign(folder)
        try:
            opened = _opened(source, files, spool, workers, say, progress)
            jobs = [
                Job(images, split, target, config.recompression(), config.shard_size)
                for split, images in opened.items()
            ]
            for job in jobs:
                _check_target(job)
            _check_room(target, sum(job.missing_bytes() for job in jobs))
            prepared = [_run(job, workers, say, progress) for job in jobs]
        except KeyboardInterrupt:
            say("stopped; the same call goes on from here: what is finished is kept")
            raise
        marked.remove(spool)
    return prepared


def _found(source: Path) -> dict[str, list[Path]]:
    """The archive, folder or parquet files of each split; a source has one kind."""
    if not source.is_dir():
        what = "is not a folder" if source.exists() else "does not exist"
        raise UserError(f"source: {source} {what}; {LAYOUTS}")
    tars = {"train": [source / archives.TRAIN_TAR], "val": [source / archives.VAL_TAR]}
    kinds = [
        {split: paths for split, paths in tars.items() if paths[0].exists()},
        parquet.parquet_files(source),
        {split: [source / split] for split in SPLITS if (source / split).is_dir()},
    ]
    found = [kind for kind in kinds if kind]
    if len(found) != 1:
        what = "several of these" if found else "nothing of the kind"
        raise UserError(f"source: {source} holds {what}; {LAYOUTS}")
    return found[0]


def _opened(
    source: Path,
    files: dict[str, list[Path]],
    spool: Path,
    workers: int,
    say: Callable[[str], None],
    progress: Progress,
) -> Mapping[str, ImageSource]:
    """The splits that the source has; parquet files are unpacked first."""
    first = next(iter(files.values()))[0]
    if first.suffix == ".parquet":
        # Room for the images, unpacked and in shards, minus what exists.
        needed = 2 * sum(parquet.unpacked_bytes(path) for paths in files.values() for path in paths)
        there = [*spool.rglob("*"), *spool.parent.glob("*.tar")]
        _check_room(spool.parent, needed - sum(p.stat().st_size for p in there if p.is_file()))
        marked.make(spool)
        parquet.unpack(files, spool, workers, progress)
        source = spool
    elif not first.is_dir():
        sources: dict[str, ImageSource] = {}
        for split, (path,) in files.items():
            say(f"{split}: reading the headers of {path}")
            if split == "train":
                sources[split] = archives.open_train_tar(path, progress)
            else:
                sources[split] = archives.open_val_tar(path, *devkit.read_val_classes(source))
        if len({images.classes for images in sources.values()}) > 1:
            raise UserError(
                f"source: {source}: training and validation images are of different classes "
                f"({len(sources['train'].classes)} and {len(sources['val'].classes)}); give both "
                "of one data set"
            )
        return sources
    try:
        if len(files) == 1:
            return {split: open_folder(source / split) for split in files}
        annotated = (source / "val" / "val_annotations.txt").is_file()
        kind = DataKind.tiny_imagenet if annotated else DataKind.folder
        train, val, _ = open_folders(source, DataConfig(kind=kind))
        return {"train": train, "val": val}
    except UserError as error:
        raise UserError(str(error).replace("data.root", "source", 1)) from error


def _check_target(job: Job) -> None:
    """Refuse shards of other images or settings, finished or begun."""
    try:
        if job.description.exists():
            there = read_meta(job.description, job.split).settings()
        elif job.settings_path().exists():
            there = dict(read_json(job.settings_path()))
        elif any(job.target.glob(f"{job.split}-*.tar")):
            raise UserError(
                f"{job.target} holds {job.split} shards without their {job.split}.json: not of "
                "this program, or it was deleted"
            )
        else:
            return
    except (OSError, ValueError, TypeError) as error:  # a UserError is a ValueError
        reason = first_line(error).partition("; ")[0].removeprefix("data.root: ")
        raise UserError(
            f"target: {reason}; choose another folder, or remove {job.description}, "
            f"{job.target / job.split}-*.tar and {job.partial} to make the {job.split} shards again"
        ) from error
    differing = [
        f"{key} is {value[:80]!r} here, {str(there.get(key))[:80]!r} there"
        for key, value in job.meta.settings().items()
        if there.get(key) != value
    ]
    if differing:
        raise UserError(
            f"target: {job.target} holds {job.split} shards made otherwise: "
            f"{'; '.join(differing)}; choose another folder, or remove it"
        )


def _run(job: Job, workers: int, say: Callable[[str], None], progress: Progress) -> Prepared:
    """Finish one split."""
    meta = _sound_description(job, say)
    expected = job.finished() if meta is None else dict(enumerate(meta.shard_sha256))
    paths = [job.path(shard) for shard in expected]
    good: set[int] = set()
    what = f"{job.split}: finished shards checked"
    progress(what, 0, len(paths))
    found = produced(file_sha256, paths, workers)
    for done, ((shard, wanted), digest) in enumerate(zip(expected.items(), found, strict=True), 1):
        if digest == wanted:
            good.add(shard)
        else:
            say(f"{job.path(shard)} is missing or damaged: making it again")
        progress(what, done, len(paths))

    job.begin()
    todo = [shard for shard in range(len(job.indices)) if shard not in good]
    images = [len(job.indices[shard]) for shard in todo]
    done = written_bytes = 0
    started = time.monotonic()
    progress(f"{job.split}: images", 0, sum(images))
    write = partial(job.write, expected if meta is not None else {})
    for count, size in zip(images, produced(write, todo, workers), strict=True):
        done += count
        written_bytes += size
        progress(f"{job.split}: images", done, sum(images))
    if meta is None:
        job.finish()
    else:
        job.put_sums(meta)
    seconds = time.monotonic() - started
    shards = ShardSource(str(job.target), job.split)
    shards.check_fingerprint()
    marked.remove(job.partial)
    return Prepared(
        job.split,
        images=len(shards),
        shards=len(job.indices),
        bytes=sum(shards.meta.shard_bytes),
        written=done,
        written_bytes=written_bytes,
        seconds=seconds,
        processes=min(max(workers, 1), len(todo)),
    )


def _sound_description(job: Job, say: Callable[[str], None]) -> ShardMeta | None:
    """The description of finished shards; None if all must be made, for the first time or again."""
    if not job.description.exists():
        return None
    meta = read_meta(job.description, job.split)
    for column, digest in meta.index_sha256.items():
        path = job.target / column_file(job.split, column)
        if file_sha256(path) != digest:
            # The records it was made from are gone, so all shards must be made again.
            say(f"{path} is damaged: making all {job.split} shards again")
            job.begin()  # first: shards without a description would be refused as foreign
            job.description.unlink()
            return None
    return meta


def _check_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f"target: {target} needs up to {needed / 1e9:,.1f} GB more, {free / 1e9:,.1f} GB are "
            "free; make room or choose another folder"
        )
