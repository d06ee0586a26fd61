"""Where images come from: a source is a numbered list of encoded images with labels."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bn_inception.data import synthetic
from bn_inception.data.backend import Backend
from bn_inception.data.cache import FileCache
from bn_inception.data.fingerprint import content_fingerprint
from bn_inception.data.remote import RemoteShards, is_url
from bn_inception.data.shards import ShardSource
from bn_inception.errors import UserError
from bn_inception.paper import results

LAYOUT = "expected ROOT/train/<class>/<image> and ROOT/val/<class>/<image>"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


class DataKind(Enum):
    """What kind of data set lies at the root."""

    folder = "folder"
    imagenet = "imagenet"
    tiny_imagenet = "tiny_imagenet"
    shards = "shards"
    synthetic = "synthetic"


class OnError(Enum):
    """What happens at an image that cannot be read: the run ends, or the next image stands in."""

    fail = "fail"
    skip = "skip"


@dataclass
class DataConfig:
    """Which images, and how many processes read them.

    Attributes:
        kind: `folder` is ImageNet's layout; `imagenet` the same with ImageNet's counts checked;
            `tiny_imagenet` also takes that set's original layout; `shards` is what `bn-inception
            prepare` makes; `synthetic` is drawn by this package into `cache`.
        root: the folder that holds train/ and val/, or the shards; for shards, any URL that fsspec
            knows, too; must be null for `synthetic`.
        cache: where `synthetic` writes its images, once, and shards are kept that come from a URL.
        cache_gib: GiB that those shards may have together.
        first_classes: only the first N classes in label order; null for all.
        workers: processes that read images; 0 reads in the main process; null chooses by cores.
        on_error: what happens at an image that cannot be read.
        backend: who decodes and resizes.
    """

    kind: DataKind = DataKind.synthetic
    root: str | None = None
    cache: str = "~/.cache/bn-inception"
    cache_gib: float = 32.0
    first_classes: int | None = None
    workers: int | None = None
    on_error: OnError = OnError.fail
    backend: Backend = Backend.fast

    def __post_init__(self) -> None:
        if self.kind is DataKind.synthetic and self.root is not None:
            raise UserError(
                f"data.root: {self.root!r} is not read by data=synthetic; "
                "choose data=folder, data=imagenet, data=tiny_imagenet or data=shards, or leave "
                "data.root out"
            )
        if not 0 < self.cache_gib < math.inf:
            raise UserError(f"data.cache_gib: {self.cache_gib} is not a number of GiB over 0")
        if self.first_classes is not None and self.first_classes < 2:
            raise UserError(f"data.first_classes: {self.first_classes} is not 2 or more; null: all")
        if self.workers is not None and self.workers < 0:
            raise UserError(
                f"data.workers: {self.workers} is negative; give 0 (no extra process) or more, "
                "or null for a number that fits the cores"
            )


def refuse_unread(config: DataConfig, command: str, remedies: Mapping[str, str]) -> None:
    """Refuse settings that a command does not read, where they are not the default.

    Args:
        config: as given.
        command: its name.
        remedies: what to do instead, by the name of each setting that is not read.

    Raises:
        UserError: one was given.
    """
    default = DataConfig()
    for key, remedy in remedies.items():
        value = getattr(config, key)
        if value != getattr(default, key):
            shown = value.value if isinstance(value, Enum) else value
            raise UserError(f"data.{key}: {shown} is not read by {command}; {remedy}")


class ImageSource(Protocol):
    """Encoded images by number; cheap to pickle, and safe to read from several processes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the position is the label."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of every image, shape (images,)."""

    @property
    def sizes(self) -> NDArray[np.integer[Any]]:
        """Bytes of every encoded image, shape (images,); -1 where it cannot be asked."""

    def __len__(self) -> int:
        """Number of images."""

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError where they cannot be had."""

    def name(self, index: int) -> str:
        """What a person needs to find this image: its path."""

    def identity(self, index: int) -> str:
        """What the image is called wherever the data set lies: its path below the split."""

    def fingerprint(self) -> str:
        """Names, sizes and labels (not the place, nor the bytes) in 64 hexadecimal digits."""


class PackedNames:
    """A sequence of byte strings in one blob and one array of offsets.

    A Python list of a million paths costs over 100 MB, and in every worker, because reading it
    writes its reference counts and so copies the pages that fork shares. This costs the text plus
    eight bytes a name, and is never written to.
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        blob, lengths = bytearray(), bytearray()
        for name in names:
            blob += name
            lengths += len(name).to_bytes(4, "little")
        self._blob = bytes(blob)
        ends = np.cumsum(np.frombuffer(bytes(lengths), dtype="<u4"), dtype=np.int64)
        self._offsets = np.concatenate([np.zeros(1, np.int64), ends])

    @property
    def text(self) -> bytes:
        """All names, one after the other."""
        return self._blob

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each name ends in `text`, shape (names,)."""
        return self._offsets[1:]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}")
        return self._blob[self._offsets[index] : self._offsets[index + 1]]


class FolderSource:
    """Image files below one folder.

    Args:
        folder: the split's folder, such as ROOT/train.
        classes: class names in label order.
        names: paths below `folder`, in the order of the indices.
        labels: label of every path, shape (images,).
    """

    def __init__(
        self,
        folder: str,
        classes: tuple[str, ...],
        names: PackedNames,
        labels: NDArray[np.int64],
    ) -> None:
        self._folder = os.fsencode(folder)
        self._classes = classes
        self._names = names
        self._labels = labels
        self._sizes: NDArray[np.int64] | None = None
        self._fingerprint: str | None = None
        assert len(names) == len(labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the position is the label."""
        return self._classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of every image, shape (images,)."""
        return self._labels

    def __len__(self) -> int:
        return len(self._names)

    def _path(self, index: int) -> bytes:
        return os.path.join(self._folder, self._names[index])

    def read(self, index: int) -> bytes:
        """The bytes of one file; OSError where it cannot be read."""
        # Opened and closed here: a handle kept open would be shared by forked workers, and one
        # worker's seek would move the other's position.
        with open(self._path(index), "rb", buffering=0) as file:
            return file.read()

    def name(self, index: int) -> str:
        """The file's path."""
        return os.fsdecode(self._path(index))

    def identity(self, index: int) -> str:
        """The path below the split's folder, such as "n01440764/a.JPEG"; no two are the same.

        Bytes that are not UTF-8 are written as backslash escapes, so that it is always plain text.
        """
        return self._names[index].decode("utf-8", "backslashreplace")

    @property
    def names(self) -> PackedNames:
        """Paths of the images below the split's folder."""
        return self._names

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every file, shape (images,); -1 where it cannot be asked. Asked once.

        Asking for ImageNet's 1.3 million sizes takes seconds on a local disk.
        """
        if self._sizes is None:
            self._sizes = np.fromiter(map(self._size, range(len(self))), np.int64, len(self))
        return self._sizes

    def _size(self, index: int) -> int:
        try:
            return os.stat(self._path(index)).st_size
        except OSError:
            return -1  # reading it fails later, by name, under data.on_error

    def fingerprint(self) -> str:
        """See `content_fingerprint`; the same wherever the folder lies. Computed once."""
        if self._fingerprint is None:
            sizes, labels = self.sizes.tolist(), self._labels.tolist()
            rows = ((self._names[i], sizes[i], labels[i]) for i in range(len(self)))
            self._fingerprint = content_fingerprint(self._classes, rows)
        return self._fingerprint


@dataclass
class Sources:
    """Training and held-out images of one data set, and what the user should be told about it."""

    train: ImageSource
    validation: ImageSource
    warnings: list[str] = field(default_factory=list)


def open_sources(config: DataConfig) -> Sources:
    """List the data set's images (ImageNet: a few seconds on a local disk); reads none of them.

    Classes are in label order: sorted by name (ImageNet: by wnid), or by value where every class
    folder is a decimal number, since "10" sorts before "2" as text.

    Raises:
        UserError: no such folder, another layout, a class without images, or classes that differ
            between train/ and val/; shards that are not whole.
    """
    if config.kind is DataKind.shards:
        return _open_shards(config)
    if config.kind is DataKind.synthetic:
        root = synthetic.prepare(Path(config.cache).expanduser())
    else:
        root = _root(config.root)
    tiny = config.kind is DataKind.tiny_imagenet
    train_folder, val_folder = root / "train", root / "val"
    for folder in (train_folder, val_folder):
        if not folder.is_dir():
            raise UserError(f"data.root: {root} has no {folder.name}/ folder; {LAYOUT}")

    classes = _classes(train_folder)
    annotations = val_folder / "val_annotations.txt"
    annotated = tiny and annotations.is_file() and (val_folder / "images").is_dir()
    if annotated:
        labelled = _annotated(annotations)
        val_classes = sorted(set(labelled.values()))
    else:
        labelled, val_classes = {}, _classes(val_folder)
    _check_same_classes(root, classes, val_classes)

    warnings: list[str] = []
    if config.kind is DataKind.imagenet and len(classes) != results.IMAGENET_CLASSES:
        warnings.append(_difference(root, "classes", len(classes), results.IMAGENET_CLASSES))
    if config.first_classes is not None:
        _check_first_classes(config.first_classes, root, classes)
        classes = classes[: config.first_classes]

    train = _scan(train_folder, classes, tiny)
    if annotated:
        validation = _scan_annotated(val_folder, classes, labelled)
    else:
        validation = _scan(val_folder, classes, tiny)
    if config.kind is DataKind.imagenet and config.first_classes is None:
        for what, found, expected in (
            ("training images", len(train), results.IMAGENET_TRAIN_IMAGES),
            ("validation images", len(validation), results.IMAGENET_VALIDATION_IMAGES),
        ):
            if found != expected:
                warnings.append(_difference(root, what, found, expected))
    return Sources(train, validation, warnings)


def open_folder(folder: Path) -> FolderSource:
    """The images of one split, in class folders or annotated as Tiny ImageNet's val/ is.

    Raises:
        UserError: no class folders, or one without images; annotations of other files.
    """
    annotations = folder / "val_annotations.txt"
    if annotations.is_file() and (folder / "images").is_dir():
        labelled = _annotated(annotations)
        return _scan_annotated(folder, class_order(set(labelled.values())), labelled)
    return _scan(folder, _classes(folder), tiny=False)


def order_warnings(source: ImageSource, shard_size: int, in_flight: int) -> list[str]:
    """What should be said about reading `source` in an order before it is read.

    Args:
        source: training images.
        shard_size: `order.shard_size`.
        in_flight: images that are read at once.

    Raises:
        UserError: shards from a URL, and a cache that does not hold what is read at once.
    """
    if not isinstance(source, RemoteShards):
        return []
    warning = source.check_order(shard_size, in_flight)
    return [warning] if warning else []


def _open_shards(config: DataConfig) -> Sources:
    train: ShardSource
    validation: ShardSource
    if is_url(config.root):
        root = str(config.root)
        cache = FileCache(
            str(Path(config.cache).expanduser() / "shards"), int(config.cache_gib * (1 << 30))
        )
        cache.open()
        train = RemoteShards(root, "train", config.first_classes, cache)
        validation = RemoteShards(root, "val", config.first_classes, cache)
        train.read_beside(validation)
    else:
        root = str(_root(config.root, "expected what bn-inception prepare writes"))
        train = ShardSource(root, "train", config.first_classes)
        validation = ShardSource(root, "val", config.first_classes)
    all_classes = train.meta.classes
    if all_classes != validation.meta.classes:
        raise UserError(
            f"data.root: {root}: the training and validation shards hold different classes; "
            "prepare both from one data set"
        )
    if config.first_classes is not None:
        _check_first_classes(config.first_classes, root, all_classes)
    return Sources(train, validation)


def _check_first_classes(wanted: int, root: Path | str, classes: list[str]) -> None:
    if wanted > len(classes):
        raise UserError(
            f"data.first_classes: {wanted} is more than the {len(classes)} classes in {root}"
        )


def class_order(names: Iterable[str]) -> list[str]:
    """Class folders in label order: by value if all are decimal numbers, else as plain text."""
    names = list(names)
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _root(root: str | None, layout: str = LAYOUT) -> Path:
    if root is None:
        raise UserError(f"data.root: not given; set data.root=ROOT to the data set; {layout}")
    if is_url(root):
        raise UserError(
            f"data.root: {root}: only data=shards reads a URL, and commands that train or "
            "evaluate; give a folder"
        )
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise UserError(f"data.root: {path} {what}; {layout}")
    return path


def _difference(root: Path, what: str, found: int, expected: int) -> str:
    return (
        f"{root} holds {found:,} {what}, ImageNet (ILSVRC 2012) has {expected:,}: "
        "results will not be comparable with the paper's"
    )


def _classes(split: Path) -> list[str]:
    names: list[str] = []
    images = 0
    try:
        with os.scandir(split) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    names.append(entry.name)
                elif is_image(entry.name):
                    images += 1
    except OSError as error:
        raise UserError(f"data.root: {split} cannot be listed: {error.strerror}") from error
    if not names:
        found = f"{images:,} images beside each other" if images else "nothing usable"
        raise UserError(f"data.root: {split} has no class folders but {found}; {LAYOUT}")
    return class_order(names)


def _check_same_classes(root: Path, train: list[str], val: list[str]) -> None:
    for here, there, missing in (
        ("train", "val", sorted(set(train) - set(val))),
        ("val", "train", sorted(set(val) - set(train))),
    ):
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise UserError(
                f"data.root: {root}: {len(missing)} classes are in {here}/ but not in {there}/: "
                f"{shown}; both must hold the same class folders"
            )


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    # Names with a leading dot are no images: macOS leaves "._x.JPEG" beside "x.JPEG".
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _images(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if is_image(e.name) and e.is_file())
    except OSError as error:
        raise UserError(f"data.root: {folder} cannot be listed: {error.strerror}") from error


def _scan(split: Path, classes: list[str], tiny: bool) -> FolderSource:
    counts: list[int] = []

    def paths() -> Iterator[bytes]:
        for name in classes:
            # Tiny ImageNet as published: train/<wnid>/images/*.JPEG, beside a file of boxes.
            inner = f"{name}/images" if tiny and (split / name / "images").is_dir() else name
            files = _images(split / inner)
            if not files:
                raise UserError(
                    f"data.root: {split / inner} holds no images "
                    f"({', '.join(SUFFIXES[:3])}, ...); fill it, or remove the class from train/ "
                    "and val/"
                )
            counts.append(len(files))
            prefix = os.fsencode(inner) + b"/"
            yield from (prefix + os.fsencode(file) for file in files)

    names = PackedNames(paths())
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return FolderSource(str(split), tuple(classes), names, labels)


def _annotated(annotations: Path) -> dict[str, str]:
    """Tiny ImageNet's val_annotations.txt: file, wnid and a box a line, separated by tabs."""
    labelled: dict[str, str] = {}
    for number, line in enumerate(annotations.read_text(errors="replace").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise UserError(
                f"data.root: {annotations} line {number}: {line[:60]!r} is not FILE<tab>WNID..."
            )
        labelled[fields[0]] = fields[1]
    return labelled


def _scan_annotated(val: Path, classes: list[str], labelled: dict[str, str]) -> FolderSource:
    files = _images(val / "images")
    differing = sorted(set(files) ^ set(labelled))
    if differing:
        raise UserError(
            f"data.root: {val}: {len(differing)} files are only in images/ or only in "
            f"val_annotations.txt, the first is {differing[0]}; both must name the same files"
        )
    label = {name: number for number, name in enumerate(classes)}
    pairs = sorted((label[labelled[f]], f) for f in files if labelled[f] in label)
    names = PackedNames(b"images/" + os.fsencode(file) for _, file in pairs)
    labels = np.array([number for number, _ in pairs], dtype=np.int64)
    return FolderSource(str(val), tuple(classes), names, labels)
