"""A network on held-out images: every image exactly once, counted exactly.

Loader workers decode each image once and cut its distinct crops; mirrors are made on the device.
A batch has as many images as fill about one of the network's, at least one: beside the network's
own memory max(batch_size, 72) x 3 x S^2 bytes (11 MB at 224), times the loader's prefetching.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bn_inception.data import (
    Backend,
    ImageSource,
    OnError,
    ValidationBatch,
    to_input,
    validation_batches,
)
from bn_inception.errors import UserError
from bn_inception.evaluation.crops import SINGLE, CropRule
from bn_inception.evaluation.saved import Errors
from bn_inception.record.predictions import NEVER, TOP, Predictions

CONFUSED_PAIRS = 20
"""The most frequent errors, as many as an evaluation's summary names."""


@dataclass(frozen=True)
class Counts:
    """What came of `count` images; an unreadable one is in `count` and never correct.

    Attributes:
        loss: mean cross-entropy of the first crop over the readable images, NaN if there is none.
        correct_by_crops: int64 (K, 2): images whose label is the likeliest class, and among the
            five likeliest, when the first 1 to K crops are averaged. Of equal probabilities the
            lower class number comes first.
    """

    loss: float
    correct_by_crops: NDArray[np.int64]
    count: int
    unreadable: int

    @property
    def top1(self) -> float:
        """Top-1 accuracy over all crops, a fraction."""
        return float(self.correct_by_crops[-1, 0] / self.count)

    @property
    def top5(self) -> float:
        """Top-5 accuracy over all crops, a fraction."""
        return float(self.correct_by_crops[-1, 1] / self.count)

    @property
    def errors(self) -> Errors:
        """The images that are not correct over all crops."""
        wrong, wrong_top5 = (self.count - self.correct_by_crops[-1]).tolist()
        return Errors(wrong, wrong_top5, self.count)


def evaluate(
    network: nn.Module,
    batches: Iterable[ValidationBatch],
    device: torch.device,
    stopped: Callable[[], bool] = lambda: False,
    total: Callable[[Tensor], Tensor] = lambda values: values,
    *,
    rule: CropRule = SINGLE,
    batch_size: int | None = None,
    each: Callable[[int, ValidationBatch, Tensor, Tensor], None] = lambda *given: None,
) -> Counts | None:
    """Evaluate `network` on `batches`; softmax and mean are computed in float64.

    Args:
        network: on `device`; put into evaluation mode, and back into the mode it was in.
        batches: of `validation_batches` with the rule's boxes.
        stopped: polled after every batch; half an evaluation counts for nothing, and gives None.
        total: sums a tensor over the processes that share the images: counts, never percentages.
        batch_size: crops that the network sees at a time; None is all of a batch.
        each: told the number of images before a batch, the batch, its logits (U, C) of the distinct
            crops, the mirrored ones last, and the softmax averaged over the crops (GN section 7),
            float64 (n, C).
    """
    was_training = network.training
    network.eval()
    correct = torch.zeros(rule.crops, 2, dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    count = unreadable = 0
    try:
        with torch.inference_mode():
            for batch in batches:
                logits = _logits(network, batch.images.to(device), rule.mirrored, batch_size)
                rows, labels = batch.rows.to(device), batch.labels.to(device)
                readable = batch.readable.to(device)
                losses = F.cross_entropy(logits[rows[:, 0]], labels, reduction="none")
                loss += losses[readable].double().sum()
                if rule.mirrored:
                    rows = torch.stack([rows, rows + len(batch.images)], 2).flatten(1)
                sums = logits.double().softmax(1)[rows].cumsum(1)  # (n, K, C)
                ranks = torch.where(readable[:, None], _ranks(sums, labels), NEVER)
                correct += torch.stack([(ranks == 0).sum(0), (ranks < TOP).sum(0)], 1)
                each(count, batch, logits, sums[:, -1] / rows.shape[1])
                count += len(labels)
                unreadable += int((~batch.readable).sum())
                if stopped():
                    return None
    finally:
        network.train(was_training)
    counts = torch.tensor([count, unreadable], device=device)
    *places, count, unreadable = total(torch.cat([correct.flatten(), counts])).tolist()
    mean = total(loss).item() / (count - unreadable) if count > unreadable else math.nan
    return Counts(mean, np.array(places, np.int64).reshape(-1, 2), count, unreadable)


def require_finite(logits: Tensor) -> None:
    """UserError where an output of a network is infinite or not a number."""
    if not bool(logits.isfinite().all()):
        raise UserError(
            "the network's outputs are not finite: the checkpoint is of a diverged run; "
            "choose an earlier one"
        )


def _logits(network: nn.Module, crops: Tensor, mirrored: bool, batch_size: int | None) -> Tensor:
    """Logits of uint8 crops (U, 3, S, S), and then of their mirrors if `mirrored`."""
    views = [crops, crops.flip(3)] if mirrored else [crops]
    return torch.cat(
        [
            network(to_input(part).contiguous(memory_format=torch.channels_last))
            for view in views
            for part in torch.split(view, batch_size or len(view))
        ]
    )


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Place of the label among the classes, (n, K) from (n, K, C) and (n,): 0 is the likeliest.

    `NEVER` where an output is not a number.
    """
    at = labels[:, None, None].expand(-1, scores.shape[1], 1)
    own = scores.gather(2, at)
    lower = torch.arange(scores.shape[2], device=scores.device) < at
    places = (scores > own).sum(2) + ((scores == own) & lower).sum(2)
    return torch.where(own[:, :, 0].isnan(), NEVER, places)


@dataclass(frozen=True)
class SourceResult:
    """What came of a source of N images of C classes.

    Attributes:
        probabilities: float16 (N, C), the mean softmax; zeros for an unreadable image.
        confused: (label, likeliest class) -> images, where the two differ.
        unreadable: index -> reason of each image that could not be read.
        seconds: from the start of reading to the last image.
    """

    counts: Counts
    probabilities: NDArray[np.float16]
    confused: Counter[tuple[int, int]]
    unreadable: dict[int, str]
    seconds: float

    def predictions(self, source: ImageSource, meta: dict[str, Any]) -> Predictions:
        """To be saved; `meta` gains `classes` and `unreadable` (id -> reason)."""
        ids = np.array([source.identity(index) for index in range(len(source))])
        unreadable = {str(ids[index]): reason for index, reason in self.unreadable.items()}
        meta = {**meta, "classes": list(source.classes), "unreadable": unreadable}
        return Predictions(ids, source.labels.astype(np.int64), self.probabilities, meta)

    def summary(self, meta: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """The JSON object beside predictions of this `meta`; `settings` follow.

        `accuracy_by_crops` has rows (crops, top-1, top-5) of accuracies, in the order of the rule's
        boxes, each plain and then mirrored; `confused` the most frequent errors.
        """
        count, classes = self.counts.count, meta["classes"]
        curve = (self.counts.correct_by_crops / count).tolist()
        pairs = sorted(self.confused.items(), key=lambda item: (-item[1], item[0]))
        return {
            "models": 1,
            **self.counts.errors.as_dict(),
            "images_per_second": count / self.seconds,
            "accuracy_by_crops": [[crops, *rates] for crops, rates in enumerate(curve, 1)],
            "confused": [
                {"label": classes[label], "predicted": classes[predicted], "images": images}
                for (label, predicted), images in pairs[:CONFUSED_PAIRS]
            ],
            **{key: value for key, value in meta.items() if key != "classes"},
            **settings,
        }


def evaluate_source(
    network: nn.Module,
    source: ImageSource,
    rule: CropRule,
    *,
    image_size: int,
    batch_size: int,
    workers: int | None,
    device: torch.device,
    backend: Backend = Backend.pillow,
    progress: Callable[[int], None] = lambda images: None,
) -> SourceResult:
    """Evaluate `network` on every image of `source`, and keep what became of each.

    The result does not depend on `workers`, and on `batch_size` (crops that the network sees at a
    time) only as far as the network's own rounding does.

    Args:
        network: on `device`, channels_last.
        progress: told the number of images done after every batch.
    """
    probabilities = np.zeros((len(source), len(source.classes)), np.float16)
    confused = Counter[tuple[int, int]]()
    unreadable: dict[int, str] = {}

    def keep(done: int, batch: ValidationBatch, logits: Tensor, mean: Tensor) -> None:
        require_finite(logits)
        readable = batch.readable.numpy()
        at = done + np.flatnonzero(readable)
        reasons = (reason for _, reason in batch.unreadable)
        unreadable.update(zip((done + np.flatnonzero(~readable)).tolist(), reasons, strict=True))
        mean = mean.cpu()[batch.readable]
        # float64 to float16 is torch's: NumPy's takes 10 times as long on small numbers.
        probabilities[at] = mean.half().numpy()
        # NumPy's argmax takes the first of equal ones, as the ranks do; torch's takes any.
        pairs = zip(source.labels[at].tolist(), mean.numpy().argmax(1).tolist(), strict=True)
        confused.update((label, likeliest) for label, likeliest in pairs if label != likeliest)
        progress(done + len(readable))

    start = time.perf_counter()
    batches = validation_batches(
        source,
        image_size=image_size,
        batch=max(1, batch_size // rule.crops),
        workers=workers,
        on_error=OnError.skip,
        backend=backend,
        boxes=rule.boxes,
    )
    with closing(batches):
        counts = evaluate(network, batches, device, rule=rule, batch_size=batch_size, each=keep)
    assert counts is not None
    if len(unreadable) == len(source):
        raise UserError(
            f"none of {len(source):,} images can be read, the first is {source.name(0)}: "
            f"{unreadable[0]}; check the disk or the data set"
        )
    seconds = time.perf_counter() - start
    return SourceResult(counts, probabilities, confused, unreadable, seconds)
