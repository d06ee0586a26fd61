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
    """Of an evaluation of `source`; `meta` gains `classes` and `unreadable` (id -> reason)."""
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

    `accuracy_by_crops` has rows (crops, top-1, top-5) of accuracies; `confused` the most frequent
    errors; `crops_per_second` counts what was computed, repetitions left out. The entries of the
    predictions' meta and `settings` stand at the end.
    """
    counts = result.counts
    classes = made.meta["classes"]
    wrong = (result.ranks > 0) & (result.predicted >= 0)
    pairs = Counter(zip(made.labels[wrong].tolist(), result.predicted[wrong].tolist(), strict=True))
    confused = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:CONFUSED_PAIRS]
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
            for (label, predicted), images in confused
        ],
        **{key: value for key, value in made.meta.items() if key != "classes"},
        **settings,
    }


def class_table(result: SourceResult, made: Predictions) -> str:
    """CSV, a line a class in label order: images, errors in images and as fractions."""
    classes = made.meta["classes"]
    images, wrong, wrong_top5 = (
        np.bincount(made.labels[which], minlength=len(classes)).tolist()
        for which in (result.ranks >= 0, result.ranks > 0, result.ranks >= TOP)
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
    """Write `NAME.npz`, and beside it `NAME.json` and `NAME.classes.csv`; each atomically."""
    paths = [path, path.with_suffix(".json"), path.with_suffix(".classes.csv")]
    write_predictions(paths[0], made)
    write_json(paths[1], described)
    write_text(paths[2], class_table(result, made))
    return paths
