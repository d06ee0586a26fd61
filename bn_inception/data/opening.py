"""Opening a data set of any kind."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bn_inception.data.config import DataConfig, DataKind
from bn_inception.data.folders import LAYOUT, check_first_classes, open_folders
from bn_inception.data.intake import synthetic
from bn_inception.data.shards import ShardSource
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError
from bn_inception.files import is_url
from bn_inception.paper import results


@dataclass
class Sources:
    """Training and held-out images of one data set, and warnings for the user."""

    train: ImageSource
    validation: ImageSource
    warnings: list[str] = field(default_factory=list)


def open_sources(config: DataConfig) -> Sources:
    """List the data set's images (ImageNet: a few seconds on a local disk); reads none of them."""
    train: ImageSource
    validation: ImageSource
    if config.kind is DataKind.shards:
        train, validation = _open_shards(config)
    else:
        if config.kind is DataKind.synthetic:
            root = synthetic.prepare(Path(config.cache).expanduser())
        else:
            root = _root(config.root)
        tiny = config.kind is DataKind.tiny_imagenet
        train, validation = open_folders(root, tiny, config.first_classes)
    # Shards may hold any data set; they are compared with ImageNet if they have its classes.
    wnids = len(train.classes) == results.IMAGENET_CLASSES and all(map(_is_wnid, train.classes))
    compared = config.kind is DataKind.imagenet or (config.kind is DataKind.shards and wnids)
    if not compared or config.first_classes is not None:
        return Sources(train, validation)
    warnings = [
        f"{config.root}: {difference}: results will not be comparable with the paper's"
        for difference in _unlike_imagenet(train, validation)
    ]
    return Sources(train, validation, warnings)


def _open_shards(config: DataConfig) -> tuple[ShardSource, ShardSource]:
    if is_url(config.root):
        root = str(config.root)
    else:
        root = str(_root(config.root, "expected what bn-inception prepare writes"))
    cache = Path(config.cache).expanduser() / "shards"
    train, validation = (
        ShardSource(root, split, config.first_classes, cache) for split in ("train", "val")
    )
    classes = train.description.classes
    if classes != validation.description.classes:
        raise UserError(
            f"data.root: {root}: the training and validation shards hold different classes; "
            "prepare both from one data set"
        )
    check_first_classes(config.first_classes, root, len(classes))
    return train, validation


def _unlike_imagenet(train: ImageSource, validation: ImageSource) -> Iterator[str]:
    """How classes and images differ from ImageNet's (ILSVRC 2012)."""
    for what, found, wanted in (
        ("training images", len(train), results.IMAGENET_TRAIN_IMAGES),
        ("validation images", len(validation), results.IMAGENET_VALIDATION_IMAGES),
        ("classes", len(train.classes), results.IMAGENET_CLASSES),
    ):
        if found != wanted:
            yield f"{found:,} {what}, ImageNet has {wanted:,}"
    per_class = np.bincount(validation.labels)
    if per_class.min() != per_class.max():
        yield f"{per_class.min()} to {per_class.max()} validation images a class, ImageNet has 50"
    odd = [name for name in train.classes if not _is_wnid(name)]
    if odd:
        yield (
            f"{len(odd):,} classes are not named by a wnid such as n01440764, the first is "
            f"{odd[0]}, so labels are not in ImageNet's order"
        )


def _is_wnid(name: str) -> bool:
    return re.fullmatch(r"n\d{8}", name) is not None


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
