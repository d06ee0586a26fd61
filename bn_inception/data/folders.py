"""Data sets that lie in class folders: ImageNet's layout, and Tiny ImageNet's."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bn_inception.data.config import DataConfig, DataKind
from bn_inception.data.source import SUFFIXES, FolderSource, PackedNames, class_order, is_image
from bn_inception.errors import UserError
from bn_inception.files import first_line
from bn_inception.paper import results

_IMAGENETS = {"train": results.IMAGENET_TRAIN_IMAGES, "val": results.IMAGENET_VALIDATION_IMAGES}
LAYOUT = "expected ROOT/train/<class>/<image> and ROOT/val/<class>/<image>"


def open_folders(root: Path, config: DataConfig) -> tuple[FolderSource, FolderSource, list[str]]:
    """The images of train/ and val/ below `root`, and warnings for the user.

    Reads only `kind` and `first_classes` of `config`.

    Raises:
        UserError: another layout, a class without images, or classes that differ between train/
            and val/.
    """
    tiny = config.kind is DataKind.tiny_imagenet
    train_folder, val_folder = root / "train", root / "val"
    for folder in (train_folder, val_folder):
        if not folder.is_dir():
            raise UserError(f"data.root: {root} has no {folder.name}/ folder; {LAYOUT}")
    classes = _classes(train_folder)
    annotated = _annotated(val_folder) if tiny else None
    val_classes = _classes(val_folder) if annotated is None else sorted(set(annotated.values()))
    _check_same_classes(root, classes, val_classes)

    found = len(classes)
    if config.first_classes is not None:
        check_first_classes(config.first_classes, root, found)
        classes = classes[: config.first_classes]
    train = _scan(train_folder, classes, tiny)
    if annotated is None:
        validation = _scan(val_folder, classes, tiny)
    else:
        validation = _scan_annotated(val_folder, classes, annotated)
    if config.kind is not DataKind.imagenet:
        return train, validation, []
    counts = {"train": len(train), "val": len(validation)} if config.first_classes is None else {}
    warnings = [
        f"{root}: {difference}: results will not be comparable with the paper's"
        for difference in unlike_imagenet(found, counts)
    ]
    return train, validation, warnings


def unlike_imagenet(classes: int, images: Mapping[str, int]) -> list[str]:
    """How the numbers of classes and images differ from ImageNet's (ILSVRC 2012)."""
    found = [
        f"{split} holds {count:,} images, ImageNet has {_IMAGENETS[split]:,}"
        for split, count in images.items()
        if count != _IMAGENETS[split]
    ]
    if classes != results.IMAGENET_CLASSES:
        found.append(f"{classes:,} classes, ImageNet has {results.IMAGENET_CLASSES:,}")
    return found


def open_folder(folder: Path) -> FolderSource:
    """The images of one split, in class folders or annotated as Tiny ImageNet's val/ is.

    Raises:
        UserError: no class folders, or one without images; annotations of other files.
    """
    annotated = _annotated(folder)
    if annotated is not None:
        return _scan_annotated(folder, class_order(set(annotated.values())), annotated)
    return _scan(folder, _classes(folder), tiny=False)


def check_first_classes(wanted: int, root: Path | str, classes: int) -> None:
    """Refuse a `data.first_classes` that is larger than the number of classes."""
    if wanted > classes:
        raise UserError(
            f"data.first_classes: {wanted} is more than the {classes} classes in {root}"
        )


def _classes(split: Path) -> list[str]:
    entries = list(_listed(split))
    names = [entry.name for entry in entries if entry.is_dir()]
    if not names:
        images = sum(is_image(entry.name) for entry in entries)
        found = f"{images:,} images beside each other" if images else "nothing usable"
        raise UserError(f"data.root: {split} has no class folders but {found}; {LAYOUT}")
    return class_order(names)


def _listed(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """The entries of a folder, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"data.root: {folder} cannot be listed: {first_line(error)}") from error


def _images(folder: Path) -> list[str]:
    return sorted(e.name for e in _listed(folder) if is_image(e.name) and e.is_file())


def _check_same_classes(root: Path, train: list[str], val: list[str]) -> None:
    for here, there, own, other in (("train", "val", train, val), ("val", "train", val, train)):
        missing = sorted(set(own) - set(other))
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise UserError(
                f"data.root: {root}: {len(missing)} classes are in {here}/ but not in {there}/: "
                f"{shown}; both must hold the same class folders"
            )


def _scan(split: Path, classes: list[str], tiny: bool) -> FolderSource:
    counts: list[int] = []

    def paths() -> Iterator[bytes]:
        for name in classes:
            # Tiny ImageNet as published: train/<wnid>/images/*.JPEG beside a file of boxes.
            inner = f"{name}/images" if tiny and (split / name / "images").is_dir() else name
            files = _images(split / inner)
            if not files:
                raise UserError(
                    f"data.root: {split / inner} holds no images "
                    f"({', '.join(SUFFIXES[:3])}, ...); fill it, or remove the class from train/ "
                    "and val/"
                )
            counts.append(len(files))
            yield from (os.fsencode(f"{inner}/{file}") for file in files)

    names = PackedNames(paths())
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return FolderSource(str(split), tuple(classes), names, labels)


def _annotated(split: Path) -> dict[str, str] | None:
    """Class by file name, if a split is annotated as Tiny ImageNet's val/ is, else None.

    Each line of val_annotations.txt has file, wnid and a box, separated by tabs.
    """
    annotations = split / "val_annotations.txt"
    if not (annotations.is_file() and (split / "images").is_dir()):
        return None
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
