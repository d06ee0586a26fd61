"""Saved predictions as arguments: which file is meant, and whether two are of the same images."""

from pathlib import Path
from typing import NoReturn

import numpy as np

from bn_inception.errors import UserError
from bn_inception.record import Predictions
from bn_inception.record.predictions import read_meta
from bn_inception.record.run_folder import refuse_links


def prediction_file(
    path: str | Path, crops: str | None = None, statistics: str | None = None
) -> Path:
    """The predictions meant by `path`: the file itself, or one in a run folder's `evaluation/`.

    In a run folder it is the newest with the crops and statistics asked for. UserError where there
    is none, and where predictions were made in several ways and no choice among them was given.
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
    wanted = {"crops": crops, "statistics": statistics}
    asked = {key: value for key, value in wanted.items() if value is not None}
    metas = {file: read_meta(file) for file in files}
    fitting = {
        file: meta
        for file, meta in metas.items()
        # A network without BN has no statistics, whichever are asked for.
        if all(meta.get(key) in (value, None) for key, value in asked.items())
    }
    ways = {
        f"crops={meta.get('crops')} statistics={meta.get('statistics')}"
        for meta in (fitting or metas).values()
    }
    there = "; ".join(sorted(ways))
    if not fitting:
        missing = " ".join(f"{key}={value}" for key, value in asked.items())
        raise UserError(
            f"{path}: holds no predictions with {missing}, only {there}; evaluate it so"
        )
    if len(ways) > 1:
        raise UserError(f"{path}: holds predictions made in several ways ({there}); choose one")
    return list(fitting)[-1]


def require_same_images(
    one: Predictions, other: Predictions, first_name: str, other_name: str
) -> None:
    """UserError with the first difference of two sets' images, labels or classes."""

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
