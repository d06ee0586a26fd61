"""Data sets that lie in class folders: ImageNet's layout, and Tiny ImageNet's."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bn_inception.data.source import SUFFIXES, FolderSource, class_order, is_image
from bn_inception.errors import UserError
from bn_inception.files import first_line

LAYOUT = "expected ROOT/train/<class>/<image> and ROOT/val/<class>/<image>"


def open_folders(
    root: Path, tiny: bool, first_classes: int | None = None
) -> tuple[FolderSource, FolderSource]:
    """The images of train/ and val/ below `root`; `tiny` reads Tiny ImageNet's layout too."""
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise UserError(f"data.root: {root} has no {split}/ folder; {LAYOUT}")
    labelled = _annotated(root / "val") if tiny else None
    classes = _classes(root / "train")
    held_out = labelled.values() if labelled else _classes(root / "val")
    differing = sorted(set(classes) ^ set(held_out))
    if differing:
        raise UserError(
            f"data.root: {root}: {len(differing)} classes are in one of train/ and val/ alone: "
            f"{', '.join(differing[:5])}; both must hold the same class folders"
        )
    check_first_classes(first_classes, root, len(classes))
    chosen = classes[:first_classes]
    return _scan(root / "train", chosen, tiny), _scan(root / "val", chosen, tiny, labelled)


def open_folder(folder: Path) -> FolderSource:
    """The images of one split in any layout."""
    labelled = _annotated(folder)
    classes = class_order(set(labelled.values())) if labelled else _classes(folder)
    return _scan(folder, classes, True, labelled)


def check_first_classes(wanted: int | None, root: Path | str, classes: int) -> None:
    """Refuse a `data.first_classes` that is larger than the number of classes."""
    if wanted is not None and wanted > classes:
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


def _scan(
    split: Path, classes: list[str], tiny: bool, labelled: dict[str, str] | None = None
) -> FolderSource:
    if labelled is not None:
        return _scan_labelled(split, classes, labelled)
    names, counts = list[bytes](), list[int]()
    for name in classes:
        # Tiny ImageNet as published: train/<wnid>/images/*.JPEG beside a file of boxes.
        inner = f"{name}/images" if tiny and (split / name / "images").is_dir() else name
        files = _images(split / inner)
        if not files:
            raise UserError(
                f"data.root: {split / inner} holds no images ({', '.join(SUFFIXES[:3])}, ...); "
                "fill it, or remove the class from train/ and val/"
            )
        counts.append(len(files))
        names += (os.fsencode(f"{inner}/{file}") for file in files)
    return FolderSource(str(split), classes, np.repeat(np.arange(len(classes)), counts), names)


def _scan_labelled(val: Path, classes: list[str], labelled: dict[str, str]) -> FolderSource:
    files = _images(val / "images")
    differing = sorted(set(files) ^ set(labelled))
    if differing:
        raise UserError(
            f"data.root: {val}: {len(differing)} files are only in images/ or only in "
            f"val_annotations.txt, the first is {differing[0]}; both must name the same files"
        )
    label = {name: number for number, name in enumerate(classes)}
    pairs = sorted((label[labelled[f]], f) for f in files if labelled[f] in label)
    labels = np.array([number for number, _ in pairs], dtype=np.int64)
    return FolderSource(str(val), classes, labels, [os.fsencode(f"images/{f}") for _, f in pairs])
