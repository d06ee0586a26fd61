"""Opening a data set of any kind."""

from dataclasses import dataclass, field
from pathlib import Path

from bn_inception.data.config import DataConfig, DataKind, is_url
from bn_inception.data.folders import LAYOUT, check_first_classes, open_folders
from bn_inception.data.intake import synthetic
from bn_inception.data.shards import ShardSource
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError


@dataclass
class Sources:
    """Training and held-out images of one data set, and warnings for the user."""

    train: ImageSource
    validation: ImageSource
    warnings: list[str] = field(default_factory=list)


def open_sources(config: DataConfig) -> Sources:
    """List the data set's images (ImageNet: a few seconds on a local disk); reads none of them.

    Classes are in label order: sorted by name (ImageNet: by wnid), or by value if all class folders
    are decimal numbers, because "10" sorts before "2" as text.

    Raises:
        UserError: no such folder, another layout, a class without images, or classes that differ
            between train/ and val/; shards that are not whole, or whose index was changed.
    """
    if config.kind is DataKind.shards:
        return _open_shards(config)
    if config.kind is DataKind.synthetic:
        root = synthetic.prepare(Path(config.cache).expanduser())
    else:
        root = _root(config.root)
    return Sources(*open_folders(root, config))


def _open_shards(config: DataConfig) -> Sources:
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
    return Sources(train, validation)


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
