"""What an evaluation leaves: predictions, a JSON summary, and a table by class."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bn_inception.data import ImageSource
from bn_inception.evaluation.crops import CropRule
from bn_inception.evaluation.evaluate import SourceResult
from bn_inception.files import write_json, write_text
from bn_inception.record import Predictions, write_predictions
from bn_inception.record.predictions import TOP

CONFUSED_PAIRS = 20


def predictions(result: SourceResult, source: ImageSource, meta: dict[str, Any]) -> Predictions:
    """The predictions of an evaluation.

    Args:
        result: of `source`.
        source: the images evaluated.
        meta: what they were made with; `classes` and `unreadable` (id -> reason) are added.
    """
    ids = np.array([source.identity(index) for index in range(len(source))])
    unreadable = {str(ids[index]): reason for index, reason in result.unreadable.items()}
    return Predictions(
        ids=ids,
        labels=source.labels.astype(np.int64),
        probabilities=result.probabilities,
        meta={**meta, "classes": list(source.classes), "unreadable": unreadable},
    )


def summary(
    result: SourceResult, made: Predictions, rule: CropRule, settings: dict[str, Any]
) -> dict[str, Any]:
    """The JSON object beside the predictions.

    Returns:
        `models` 1; exact counts `count`, `wrong`, `wrong_top5`; errors and
        their 95 % Wilson intervals as fractions; `accuracy_by_crops`, rows (crops, top-1, top-5)
        of accuracies, and `crop_order`; `confused`, the most frequent (label, predicted, images);
        `unreadable`; `images_per_second` and `crops_per_second` (what was computed, repetitions
        left out); then the entries of the predictions' meta (`crops`, `statistics`, ...) and
        `settings`.
    """
    counts = result.counts
    classes = made.meta["classes"]
    meta = {key: value for key, value in made.meta.items() if key != "classes"}
    return {
        "models": 1,
        **counts.errors.as_dict(),
        "images_per_second": counts.count / result.seconds,
        "crops_per_second": result.crops / result.seconds,
        "crop_order": rule.order,
        "accuracy_by_crops": [
            [crops, correct / counts.count, correct_top5 / counts.count]
            for crops, (correct, correct_top5) in enumerate(counts.correct_by_crops.tolist(), 1)
        ],
        "confused": [
            {"label": classes[label], "predicted": classes[predicted], "images": images}
            for label, predicted, images in confused_pairs(result, made, CONFUSED_PAIRS)
        ],
        **meta,
        **settings,
    }


def confused_pairs(
    result: SourceResult, made: Predictions, limit: int
) -> list[tuple[int, int, int]]:
    """The most frequent top-1 errors: (label, predicted class, images), most frequent first."""
    wrong = (result.ranks > 0) & (result.predicted >= 0) & (made.labels >= 0)
    pairs = zip(made.labels[wrong].tolist(), result.predicted[wrong].tolist(), strict=True)
    counted = sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0]))
    return [(label, predicted, images) for (label, predicted), images in counted[:limit]]


def class_table(result: SourceResult, made: Predictions) -> str:
    """CSV, a line a class in label order: images, errors in images and as fractions."""
    classes = made.meta["classes"]
    known = made.labels >= 0
    images, wrong, wrong_top5 = (
        np.bincount(made.labels[known & which], minlength=len(classes)).tolist()
        for which in (known, result.ranks > 0, result.ranks >= TOP)
    )
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "images", "wrong", "wrong_top5", "top1_error", "top5_error"])
    for name, total, one, five in zip(classes, images, wrong, wrong_top5, strict=True):
        rates = [f"{part / total:.6g}" if total else "" for part in (one, five)]
        table.writerow([name, total, one, five, *rates])
    return text.getvalue()


def write_evaluation(
    path: Path, result: SourceResult, made: Predictions, described: dict[str, Any]
) -> list[Path]:
    """Write `NAME.npz`, and beside it `NAME.json` and `NAME.classes.csv`; each atomically.

    Raises:
        UserError: a file cannot be written; those that were there stay.
    """
    paths = [path, path.with_suffix(".json"), path.with_suffix(".classes.csv")]
    write_predictions(paths[0], made)
    write_json(paths[1], described)
    write_text(paths[2], class_table(result, made))
    return paths
