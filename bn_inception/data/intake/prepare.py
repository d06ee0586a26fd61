"""Making shards of a data set: every way in, interrupted or not, gives the same bytes.

What is written depends on the images and the settings alone, however often the work was
interrupted and however many processes did it. A finished shard is checked against its record by
the next call, and not made again.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bn_inception.data.config import DataConfig, DataKind
from bn_inception.data.description import ShardMeta, column_file, file_sha256, read_meta
from bn_inception.data.folders import open_folder, open_folders
from bn_inception.data.intake import archives, devkit, marked, parquet
from bn_inception.data.intake.packing import Job
from bn_inception.data.intake.recompression import Recompression
from bn_inception.data.parallel import Progress, cores, unordered
from bn_inception.data.shards import PlacedImages, ShardSource
from bn_inception.data.source import FolderSource
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
    """What is made of what."""

    source: str  # a folder in one of `LAYOUTS`
    target: str  # the folder that the shards are written to
    # encode images again whose shorter side is longer than this, in pixels; None keeps
    # every image's own bytes
    shorter_side: int | None = None
    quality: int | None = None  # JPEG quality of those, 1 to 100; None is `DEFAULT_QUALITY`
    shard_size: int = 1251  # images in a shard
    workers: int | None = None  # processes; 0 works in this one, None is as many as cores

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
        """How images are encoded again, if they are."""
        if self.shorter_side is None:
            return None
        return Recompression(self.shorter_side, self.quality or DEFAULT_QUALITY)


@dataclass(frozen=True)
class Prepared:
    """What became of one split."""

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
    """Make, complete or check the shards of every split that the source has; one entry a split.

    `say` is told what takes long.

    Raises:
        UserError: the source is not understood, or an image of it cannot be read; the target holds
            something else, is being written by another process, or has no room.
    """
    target, source = Path(config.target).expanduser(), Path(config.source).expanduser()
    files = _found(source)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"target: {target} cannot be created ({first_line(error)})") from error
    spool = target / "spool"
    with _locked(target):
        for folder in (spool, *(target / f"{split}.partial" for split in SPLITS)):
            marked.refuse_foreign(folder)
        try:
            jobs = [
                Job(images, split, target, config.recompression(), config.shard_size)
                for split, images in _opened(source, files, spool, config, say, progress).items()
            ]
            for job in jobs:
                _check_target(job)
            _check_room(target, sum(job.missing_bytes() for job in jobs))
            prepared = [_run(job, config.workers, say, progress) for job in jobs]
        except KeyboardInterrupt:
            say("stopped; the same call goes on from here: what is finished is kept")
            raise
        marked.remove(spool)
    return prepared


def _found(source: Path) -> dict[str, list[Path]]:
    """What a source holds, of one kind, by split: an archive, a folder, or parquet files."""
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
    config: PrepareConfig,
    say: Callable[[str], None],
    progress: Progress,
) -> dict[str, FolderSource] | dict[str, PlacedImages]:
    """The splits that the source has; parquet files are unpacked first."""
    first = next(iter(files.values()))[0]
    if first.is_dir():
        return _folders(source, files.keys())
    if first.suffix == ".parquet":
        counts = _unpack(files, spool, config.workers, progress)
        unpacked = _folders(spool, files.keys())
        for split, images in unpacked.items():
            if len(images) != counts[split]:
                raise UserError(
                    f"source: {source}: of {counts[split]:,} {split} images {len(images):,} have "
                    "names of their own in their class; give the files as downloaded"
                )
        return unpacked
    sources: dict[str, PlacedImages] = {}
    for split, (path,) in files.items():
        say(f"{split}: reading the headers of {path}")
        if split == "train":
            sources[split] = archives.open_train_tar(path, progress)
        else:
            sources[split] = archives.open_val_tar(path, *devkit.read_val_classes(source))
    if len(sources) == 2 and sources["train"].classes != sources["val"].classes:
        raise UserError(
            f"source: {source}: training and validation images are of different classes "
            f"({len(sources['train'].classes)} and {len(sources['val'].classes)}); give both "
            "of one data set"
        )
    return sources


def _unpack(
    files: dict[str, list[Path]], spool: Path, workers: int | None, progress: Progress
) -> dict[str, int]:
    """Unpack parquet files into class folders; return the number of images of every split."""
    # What the images take, once unpacked and once in shards, less what is there.
    there = sum(path.stat().st_size for path in spool.rglob("*") if path.is_file())
    needed = 2 * sum(parquet.unpacked_bytes(path) for paths in files.values() for path in paths)
    there += sum(path.stat().st_size for path in spool.parent.glob("*.tar"))
    _check_room(spool.parent, needed - there)
    marked.make(spool)
    counts = {}
    for split, paths in files.items():
        try:
            (spool / split).mkdir(exist_ok=True)
        except OSError as error:
            raise marked.unwritable(spool / split, error) from error
        counts[split] = parquet.unpack(paths, spool / split, workers, progress)
    return counts


def _folders(source: Path, splits: Iterable[str]) -> dict[str, FolderSource]:
    try:
        if len(set(splits)) == 1:
            return {split: open_folder(source / split) for split in splits}
        annotated = (source / "val" / "val_annotations.txt").is_file()
        kind = DataKind.tiny_imagenet if annotated else DataKind.folder
        train, val, _ = open_folders(source, DataConfig(kind=kind))
        return {"train": train, "val": val}
    except UserError as error:
        raise UserError(str(error).replace("data.root", "source", 1)) from error


def _check_target(job: Job) -> None:
    """Refuse shards of other images or settings, finished or begun."""
    shards = f"{job.target / job.split}-*.tar"
    plan = job.settings_path()
    if job.description.exists():
        try:
            there = read_meta(job.target, job.split).settings()
        except UserError as error:
            reason = str(error).partition("; ")[0].removeprefix("data.root: ")
            raise UserError(
                f"target: {reason}; remove it and {shards} to make the {job.split} shards "
                "again, or choose another folder"
            ) from error
    elif plan.exists():
        try:
            there = dict(read_json(plan))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"target: {plan} cannot be read ({first_line(error)}); remove {plan.parent} to "
                "begin again"
            ) from error
    elif any(job.target.glob(f"{job.split}-*.tar")):
        raise UserError(
            f"target: {job.target} holds {job.split} shards without their {job.split}.json: not "
            f"of this program, or it was deleted; choose another folder, or remove {shards} to "
            "make them again"
        )
    else:
        return
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


def _run(job: Job, workers: int | None, say: Callable[[str], None], progress: Progress) -> Prepared:
    """Bring one split to its end."""
    meta = _sound_description(job, say)
    checked = _checked(job, meta, workers, say, progress)
    job.begin()
    todo = {n: own for n, own in enumerate(job.indices) if n not in checked}
    left = sum(map(len, todo.values()))
    written = written_bytes = 0
    started = time.monotonic()
    progress(f"{job.split}: images", 0, left)
    write = partial(_write, job, None if meta is None else meta.shard_sha256)
    for shard, size in unordered(write, todo, workers):
        written += len(todo[shard])
        written_bytes += size
        progress(f"{job.split}: images", written, left)
    if meta is None:
        job.finish()
    else:
        _restore_sums(job, meta, say)
    seconds = time.monotonic() - started
    shards = ShardSource(str(job.target), job.split)
    shards.check_fingerprint()
    meta = shards.meta
    marked.remove(job.partial)
    processes = min(cores() if workers is None else max(workers, 1), len(todo))
    total = sum(meta.shard_bytes)
    return Prepared(
        job.split, meta.images, len(job.indices), total, written, written_bytes, seconds, processes
    )


def _write(job: Job, expected: list[str] | None, shard: int) -> tuple[int, int]:
    return job.write(shard, None if expected is None else expected[shard])


def _sound_description(job: Job, say: Callable[[str], None]) -> ShardMeta | None:
    """What describes finished shards; None where they are not, or must all be made again."""
    if not job.description.exists():
        return None
    meta = read_meta(job.target, job.split)
    for column, digest in meta.index_sha256.items():
        path = job.target / column_file(job.split, column)
        if file_sha256(path) != digest:
            # The records it was made of are gone, so it takes all shards.
            say(f"{path} is damaged: making all {job.split} shards again")
            job.begin()  # first, for shards without a description are taken for others'
            job.description.unlink()
            return None
    return meta


def _checked(
    job: Job,
    meta: ShardMeta | None,
    workers: int | None,
    say: Callable[[str], None],
    progress: Progress,
) -> set[int]:
    """Shards that are there, and are as their checksums say."""
    if meta is not None:
        expected = dict(enumerate(meta.shard_sha256))
    else:
        records = {shard: job.record(shard) for shard in range(len(job.indices))}
        expected = {n: record.sha256 for n, record in records.items() if record is not None}
    good: set[int] = set()
    what = f"{job.split}: finished shards checked"
    progress(what, 0, len(expected))
    checks = unordered(job.is_good, expected.items(), workers)
    for done, (shard, is_good) in enumerate(checks, 1):
        progress(what, done, len(expected))
        if is_good:
            good.add(shard)
        else:
            say(f"{job.path(shard)} is missing or damaged: making it again")
    return good


def _restore_sums(job: Job, meta: ShardMeta, say: Callable[[str], None]) -> None:
    """Write the file of checksums again where it is not what the description says."""
    path, content = job.target / f"{meta.split}.sha256", meta.sha256sums().encode()
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    say(f"{path} is missing or damaged: writing it again")
    job.put(path, content)


def _check_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f"target: {target} needs up to {needed / 1e9:,.1f} GB more, {free / 1e9:,.1f} GB are "
            "free; make room or choose another folder"
        )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep other processes out."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(target / ".lock", wait=False))
        except BlockingIOError as error:
            raise UserError(f"target: {target} is being written by another process") from error
        except OSError as error:
            raise UserError(f"target: {target} cannot be written ({first_line(error)})") from error
        yield
