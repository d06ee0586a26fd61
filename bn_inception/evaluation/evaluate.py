"""Top-1 and top-5 accuracy over every held-out image, counted exactly."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception.data import ValidationBatch, to_input

TOP = 5


@dataclass(frozen=True)
class EvaluationResult:
    """Counts over `count` images; an unreadable image is in `count` and never correct.

    Attributes:
        loss: mean cross-entropy over the readable images, NaN if there is none.
        correct: images whose highest logit is their label.
        correct_top5: images whose label is among the five highest logits.
        count: images, readable or not.
        unreadable: images that could not be read.
    """

    loss: float
    correct: int
    correct_top5: int
    count: int
    unreadable: int

    @property
    def top1(self) -> float:
        """Top-1 accuracy, a fraction."""
        return self.correct / self.count

    @property
    def top5(self) -> float:
        """Top-5 accuracy, a fraction."""
        return self.correct_top5 / self.count


def evaluate(
    network: nn.Module,
    batches: Iterable[ValidationBatch],
    device: torch.device,
    stopped: Callable[[], bool] = lambda: False,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> EvaluationResult | None:
    """Evaluate `network` on `batches` with its running statistics; single crop.

    Args:
        network: put into evaluation mode, and back into the mode it was in.
        batches: uint8 images (N, 3, S, S); the last may be smaller.
        device: where the network lies.
        stopped: polled after every batch.
        total: sums a tensor over the processes that share the images, each with batches of its own;
            counts are summed, never percentages averaged.

    Returns:
        Exact counts, or None if `stopped` said so: half an evaluation counts for nothing.
    """
    was_training = network.training
    network.eval()
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    count = unreadable = 0
    try:
        with torch.inference_mode():
            for batch in batches:
                images = to_input(batch.images.to(device)).contiguous(
                    memory_format=torch.channels_last
                )
                labels, readable = batch.labels.to(device), batch.readable.to(device)
                logits = network(images)
                losses = F.cross_entropy(logits, labels, reduction="none")
                loss += losses[readable].double().sum()
                top = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
                hits = (top == labels[:, None]) & readable[:, None]
                counts += torch.stack([hits[:, 0].sum(), hits.sum()])
                count += len(labels)
                unreadable += int((~batch.readable).sum())
                if stopped():
                    return None
    finally:
        network.train(was_training)
    images_seen = torch.tensor([count, unreadable], device=device)
    correct, correct_top5, count, unreadable = total(torch.cat([counts, images_seen])).tolist()
    readable_count = count - unreadable
    return EvaluationResult(
        loss=total(loss).item() / readable_count if readable_count else float("nan"),
        correct=correct,
        correct_top5=correct_top5,
        count=count,
        unreadable=unreadable,
    )
