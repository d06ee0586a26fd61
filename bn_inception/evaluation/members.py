"""Saved predictions as arguments: which file is meant, and whether two are of the same images."""

from pathlib import Path
from typing import NoReturn

import numpy as np

from bn_inception.errors import UserError
from bn_inception.record import UNLABELLED, Predictions
from bn_inception.record.predictions import read_meta
from bn_inception.record.run_folder import refuse_links


def prediction_file(
    path: str | Path, crops: str | None = None, statistics: str | None = None
) -> Path:
    """The predictions meant by `path`: the file itself, or one in a run folder's `evaluation/`.

    Args:
        path: an .npz file or a run folder.
        crops: of a run folder, only predictions with this crop setting.
        statistics: of a run folder, only predictions with these BN statistics.

    Returns:
        In a run folder the newest that fits.

    Raises:
        UserError: nothing there, nothing that fits, or predictions made in several ways and no
            choice among them.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    refuse_links(path)
    files = sorted((path / "evaluation").glob("*.npz"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        raise UserError(
            f"{path}: holds no predictions (evaluation/*.npz); make them with bn-inception "
            f"evaluate run={path}"
        )
    ways = {file: _way(file) for file in files}
    fitting = [
        file
        for file, (its_crops, its_statistics) in ways.items()
        if crops in (None, its_crops) and statistics in (None, its_statistics)
    ]
    found = {ways[file] for file in (fitting or files)}
    there = "; ".join(sorted(f"crops={c} statistics={s}" for c, s in found))
    if not fitting:
        wanted = " ".join(
            f"{key}={value}"
            for key, value in (("crops", crops), ("statistics", statistics))
            if value is not None
        )
        raise UserError(f"{path}: holds no predictions with {wanted}, only {there}; evaluate it so")
    if len(found) > 1:
        raise UserError(f"{path}: holds predictions made in several ways ({there}); choose one")
    return fitting[-1]


def _way(file: Path) -> tuple[object, object]:
    meta = read_meta(file)
    return meta.get("crops"), meta.get("statistics")


def require_same_images(
    one: Predictions, other: Predictions, first_name: str, other_name: str
) -> None:
    """Refuse two sets of predictions that are not of the same labelled images and classes.

    Raises:
        UserError: the first difference, or the first image without a label.
    """

    def refuse(what: str) -> NoReturn:
        raise UserError(f"{first_name} and {other_name}: {what}; evaluate both on the same data")

    if len(one) != len(other):
        refuse(f"{len(one)} and {len(other)} images")
    for at in np.flatnonzero(one.ids != other.ids):
        refuse(f"image {at + 1} is {one.ids[at]} in one and {other.ids[at]} in the other")
    classes, other_classes = one.probabilities.shape[1], other.probabilities.shape[1]
    if classes != other_classes:
        refuse(f"{classes} and {other_classes} classes")
    names, other_names = (made.meta.get("classes") or [] for made in (one, other))
    for number, (name, other_class) in enumerate(zip(names, other_names, strict=False)):
        if name != other_class:
            refuse(f"class {number} is {name} in one and {other_class} in the other")
    for at in np.flatnonzero(one.labels != other.labels):
        label, other_label = one.labels[at], other.labels[at]
        refuse(f"{one.ids[at]} has the label {label} in one and {other_label} in the other")
    for at in np.flatnonzero(one.labels == UNLABELLED):
        raise UserError(
            f"{first_name} and {other_name}: {one.ids[at]} has no label, so that there are no "
            "errors to count; for unlabelled images see bn-inception submission"
        )
