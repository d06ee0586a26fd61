"""What an evaluation leaves: predictions, a JSON summary, and a table by class."""

from pathlib import Path
from typing import Any

import numpy as np

from bn_inception.data import ImageSource
from bn_inception.evaluation.evaluate import SourceResult
from bn_inception.files import write_json
from bn_inception.record import Predictions, write_predictions

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


def summary(result: SourceResult, made: Predictions, settings: dict[str, Any]) -> dict[str, Any]:
    """The JSON object beside the predictions.

    `accuracy_by_crops` has rows (crops, top-1, top-5) of accuracies, in the order of the rule's
    boxes, each plain and then mirrored; `confused` the most frequent errors. The predictions' meta
    and `settings` follow.
    """
    counts = result.counts
    classes = made.meta["classes"]
    pairs = sorted(result.confused.items(), key=lambda item: (-item[1], item[0]))
    return {
        "models": 1,
        **counts.errors.as_dict(),
        "images_per_second": counts.count / result.seconds,
        "accuracy_by_crops": [
            [crops, correct / counts.count, correct_top5 / counts.count]
            for crops, (correct, correct_top5) in enumerate(counts.correct_by_crops.tolist(), 1)
        ],
        "confused": [
            {"label": classes[label], "predicted": classes[predicted], "images": images}
            for (label, predicted), images in pairs[:CONFUSED_PAIRS]
        ],
        **{key: value for key, value in made.meta.items() if key != "classes"},
        **settings,
    }


def write_evaluation(path: Path, made: Predictions, described: dict[str, Any]) -> list[Path]:
    """Write `NAME.npz`, and beside it `NAME.json`; each atomically."""
    write_predictions(path, made)
    write_json(path.with_suffix(".json"), described)
    return [path, path.with_suffix(".json")]
