"""Opening a data set of any kind."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bn_inception.data.config import DataConfig, DataKind
from bn_inception.data.intake import synthetic
from bn_inception.data.shards import ShardSource
from bn_inception.data.source import SUFFIXES, FolderSource, ImageSource, class_order, is_image
from bn_inception.errors import UserError
from bn_inception.files import expanded, is_url, refusing
from bn_inception.paper import results

LAYOUT = "expected ROOT/train/<class>/<image> and ROOT/val/<class>/<image>"
PREPARE = (
    "ILSVRC's validation archive unpacks so: bn-inception prepare reads the archive and its devkit"
)


@dataclass
class Sources:
    """Training and held-out images of one data set, and warnings for the user."""

    train: ImageSource
    validation: ImageSource
    warnings: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Of both, as it stands in the record of every run."""
        return f"{self.train.fingerprint}+{self.validation.fingerprint}"


def open_sources(config: DataConfig) -> Sources:
    """List the data set's images (ImageNet: a few seconds on a local disk); reads none of them."""
    kind, first_classes = config.kind, config.first_classes
    train, validation = (_open_shards if kind is DataKind.shards else _open_folders)(config)
    sources = Sources(train, validation)
    classes, held_out = sources.train.classes, sources.validation.classes
    if classes != held_out:
        differing = sorted(set(classes) ^ set(held_out))
        raise UserError(
            f"data.root: {config.root}: {len(differing)} classes are in one of train and val "
            f"alone: {', '.join(differing[:5])}; both must be of the same classes, in one order"
        )
    if first_classes is not None and first_classes > len(classes):
        raise UserError(
            f"data.first_classes: {first_classes} is more than the {len(classes)} classes in "
            f"{config.root or kind.value}"
        )
    # Shards may hold any data set; they are compared with ImageNet if they have its classes.
    wnids = len(classes) == results.IMAGENET_CLASSES and all(map(_is_wnid, classes))
    compared = kind is DataKind.imagenet or (kind is DataKind.shards and wnids)
    if compared and first_classes is None:
        sources.warnings = [
            f"{config.root}: {difference}: results will not be comparable with the paper's"
            for difference in _unlike_imagenet(sources)
        ]
    return sources


def _open_shards(config: DataConfig) -> Iterator[ImageSource]:
    root = config.root
    if root is None or not is_url(root):
        root = str(_root(root, "expected what bn-inception prepare writes"))
    cache = expanded(config.cache) / "shards"
    return (ShardSource(root, split, config.first_classes, cache) for split in ("train", "val"))


def _open_folders(config: DataConfig) -> Iterator[ImageSource]:
    if config.kind is DataKind.synthetic:
        root = synthetic.prepare(expanded(config.cache))
    else:
        root = _root(config.root)
    splits = [root / "train", root / "val"]
    for split in splits:
        if not split.is_dir():
            raise UserError(f"data.root: {root} has no {split.name}/ folder; {LAYOUT}")
    tiny = config.kind is DataKind.tiny_imagenet
    return (open_folder(split, tiny, config.first_classes) for split in splits)


def _root(root: str | None, layout: str = LAYOUT) -> Path:
    if root is None:
        raise UserError(f"data.root: not given; set data.root=ROOT to the data set; {layout}")
    if is_url(root):
        raise UserError(
            f"data.root: {root}: only data=shards reads a URL, and commands that train or "
            "evaluate; give a folder"
        )
    path = expanded(root)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise UserError(f"data.root: {path} {what}; {layout}")
    return path


def _unlike_imagenet(sources: Sources) -> Iterator[str]:
    """How classes and images differ from ImageNet's (ILSVRC 2012)."""
    classes = sources.train.classes
    for what, found, wanted in (
        ("training images", len(sources.train), results.IMAGENET_TRAIN_IMAGES),
        ("validation images", len(sources.validation), results.IMAGENET_VALIDATION_IMAGES),
        ("classes", len(classes), results.IMAGENET_CLASSES),
    ):
        if found != wanted:
            yield f"{found:,} {what}, ImageNet has {wanted:,}"
    per_class = np.bincount(sources.validation.labels)
    if per_class.min() != per_class.max():
        yield f"{per_class.min()} to {per_class.max()} validation images a class, ImageNet has 50"
    odd = [name for name in classes if not _is_wnid(name)]
    if odd:
        yield (
            f"{len(odd):,} classes are not named by a wnid such as n01440764, the first is "
            f"{odd[0]}, so labels are not in ImageNet's order"
        )


def _is_wnid(name: str) -> bool:
    return re.fullmatch(r"n\d{8}", name) is not None


def open_folder(split: Path, tiny: bool = True, first_classes: int | None = None) -> FolderSource:
    """The images of one split in class folders; `tiny` reads Tiny ImageNet's layout too."""
    annotated = _annotated(split) if tiny else None
    classes = class_order(annotated or _class_folders(split))[:first_classes]
    names, counts = list[bytes](), list[int]()
    for name in classes:
        # Tiny ImageNet as published: train/<wnid>/images/*.JPEG beside a file of boxes.
        inner = f"{name}/images" if tiny and (split / name / "images").is_dir() else name
        files = annotated[name] if annotated else _images(split, inner)
        if not files:
            raise UserError(
                f"data.root: {split / inner} holds no images ({', '.join(SUFFIXES[:3])}, ...); "
                "fill it, or remove the class from train/ and val/"
            )
        counts.append(len(files))
        names += map(os.fsencode, files)
    return FolderSource(str(split), classes, np.repeat(np.arange(len(classes)), counts), names)


def _class_folders(split: Path) -> list[str]:
    entries = list(_listed(split))
    names = [entry.name for entry in entries if entry.is_dir()]
    if not names:
        images = sum(is_image(entry.name) for entry in entries)
        found = f"{images:,} images beside each other" if images else "nothing usable"
        remedy = f"; {PREPARE}" if images and split.name == "val" else ""
        raise UserError(f"data.root: {split} has no class folders but {found}; {LAYOUT}{remedy}")
    return names


def _annotated(split: Path) -> dict[str, list[str]] | None:
    """Images by class, if a split is annotated as Tiny ImageNet's val/ is, else None.

    Each line of val_annotations.txt has file, wnid and a box, separated by tabs.
    """
    annotations = split / "val_annotations.txt"
    if not (annotations.is_file() and (split / "images").is_dir()):
        return None
    class_of: dict[str, str] = {}
    for number, line in enumerate(annotations.read_text(errors="replace").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise UserError(
                f"data.root: {annotations} line {number}: {line[:60]!r} is not FILE<tab>WNID..."
            )
        class_of[f"images/{fields[0]}"] = fields[1]
    differing = sorted(class_of.keys() ^ _images(split, "images"))
    if differing:
        raise UserError(
            f"data.root: {split}: {len(differing)} files are only in images/ or only in "
            f"val_annotations.txt, the first is {differing[0]}; both must name the same files"
        )
    found = defaultdict[str, list[str]](list)
    for file in sorted(class_of):
        found[class_of[file]].append(file)
    return found


def _images(split: Path, folder: str) -> list[str]:
    # A link that leads nowhere is listed: its reading fails by name.
    entries = (e for e in _listed(split / folder) if e.is_file() or e.is_symlink())
    names = (e.name for e in entries if is_image(e.name))
    return [f"{folder}/{name}" for name in sorted(names)]


def _listed(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """The entries of a folder, without hidden files."""
    what, remedy = f"data.root: {folder} cannot be listed", "check your rights there"
    with refusing(what, remedy), os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))
