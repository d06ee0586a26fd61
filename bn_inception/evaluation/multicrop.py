"""Evaluation with several crops of an image, streaming (GN section 7, BN section 4.2.3).

Loader workers decode each image once and cut its distinct crops (`crops.cut_plan`); mirrors are
made on the device by flipping. The network sees at most `batch` crops at a time. A worker hands
over as many images as fill about one batch, at least one: beside the network's own memory that is
at most max(batch, 63) x 3 x S^2 bytes (10 MB at 224), times the loader's prefetching, whatever
the size of the data set. What grows with the data set are the predictions, two bytes an image and
class.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bn_inception.data import Backend, ImageSource, UnreadableImage, to_input
from bn_inception.data.loader import read_image
from bn_inception.data.parallel import produced
from bn_inception.data.pixels.crops import Picture
from bn_inception.data.shared_memory import batch_bytes
from bn_inception.errors import UserError
from bn_inception.evaluation.crops import CropSetting, cut_plan
from bn_inception.record.predictions import NEVER

TOP = 5


@dataclass(frozen=True)
class MultiCropResult:
    """What came of N images of C classes, averaged over K crops each.

    Attributes:
        probabilities: float16 (N, C), the mean softmax; zeros for an unreadable image.
        ranks: int64 (N,), classes likelier than the label, before rounding to float16: 0 is
            correct, below 5 is correct in the top-5 sense; `NEVER` for an unreadable image and for
            one without a label. Of equal probabilities the lower class number comes first.
        predicted: int64 (N,), the likeliest class, -1 for an unreadable image.
        correct_by_crops: int64 (K, 2): images whose label is the likeliest, and among the five
            likeliest, when the first 1 to K crops are averaged.
        unreadable: index -> reason of each image that could not be read.
        crops: crops computed, mirrors included; the repetitions in a setting are not.
        seconds: from the start of reading to the last image.
    """

    probabilities: NDArray[np.float16]
    ranks: NDArray[np.int64]
    predicted: NDArray[np.int64]
    correct_by_crops: NDArray[np.int64]
    unreadable: dict[int, str]
    crops: int
    seconds: float

    @property
    def count(self) -> int:
        """Images, unreadable ones included."""
        return len(self.ranks)

    @property
    def wrong(self) -> int:
        """Top-1 errors; an unreadable image is one."""
        return int((self.ranks > 0).sum())

    @property
    def wrong_top5(self) -> int:
        """Top-5 errors; an unreadable image is one."""
        return int((self.ranks >= TOP).sum())


class CropBatch(NamedTuple):
    """The distinct, unmirrored crops of some consecutive images.

    Attributes:
        images: the images' indices.
        crops: uint8 (U, 3, S, S), in channels_last memory.
        rows: int64 (len(images), K): of every crop the row among `crops`, plus U if mirrored;
            zeros for an unreadable image.
        unreadable: index -> reason.
    """

    images: range
    crops: Tensor
    rows: Tensor
    unreadable: dict[int, str]


def evaluate_crops(
    network: nn.Module,
    source: ImageSource,
    *,
    setting: CropSetting,
    image_size: int,
    batch: int,
    workers: int | None,
    device: torch.device,
    backend: Backend = Backend.pillow,
    progress: Callable[[int], None] = lambda images: None,
) -> MultiCropResult:
    """Evaluate every image of `source` exactly once, its softmax averaged over crops.

    Softmax and mean are computed in float64. The result does not depend on `workers`, and on
    `batch` only as far as the network's own rounding does.

    Args:
        network: on `device`, channels_last; put into evaluation mode, and back.
        source: held-out images; a label of -1 is an unknown one.
        setting: the crops.
        image_size: S in pixels.
        batch: crops that the network sees at a time, at least 1.
        workers: processes that read and cut; 0 does it in this one, None chooses by the cores.
        device: where the network lies.
        backend: who decodes and resizes.
        progress: told the number of images done after every request.

    Raises:
        UserError: no image could be read, or the network's outputs are not finite.
    """
    count, classes = len(source), len(source.classes)
    result = MultiCropResult(
        probabilities=np.zeros((count, classes), np.float16),
        ranks=np.full(count, NEVER, np.int64),
        predicted=np.full(count, -1, np.int64),
        correct_by_crops=np.zeros((setting.count, 2), np.int64),
        unreadable={},
        crops=0,
        seconds=0.0,
    )
    crops, start = 0, time.perf_counter()
    was_training = network.training
    network.eval()
    try:
        with closing(crop_batches(source, setting, image_size, batch, workers, backend)) as batches:
            for cut in batches:
                result.unreadable.update(cut.unreadable)
                crops += len(cut.crops) * (2 if setting.mirrored else 1)
                readable = [index for index in cut.images if index not in cut.unreadable]
                if readable:
                    rows = cut.rows[[index - cut.images.start for index in readable]]
                    softmax = probabilities(network, cut.crops, setting.mirrored, batch, device)
                    _average(result, softmax, rows.to(device), np.array(readable), source.labels)
                progress(cut.images.stop)
    finally:
        network.train(was_training)
    if len(result.unreadable) == count:
        index, reason = next(iter(result.unreadable.items()))
        raise UserError(
            f"none of {count:,} images can be read, the first is {source.name(index)}: {reason}; "
            "check the disk or the data set"
        )
    seconds = time.perf_counter() - start
    return MultiCropResult(**{**vars(result), "crops": crops, "seconds": seconds})


def probabilities(
    network: nn.Module, crops: Tensor, mirrored: bool, batch: int, device: torch.device
) -> Tensor:
    """Softmax of crops and of their mirrors.

    Args:
        network: on `device`, in evaluation mode.
        crops: uint8 (U, 3, S, S).
        mirrored: whether to take every crop mirrored as well.
        batch: crops that the network sees at a time.
        device: where the network lies.

    Returns:
        float64 (U, C), or (2U, C): first all as they are, then all mirrored.

    Raises:
        UserError: a logit is not finite.
    """
    outputs: list[list[Tensor]] = [[], []]
    step = max(1, batch // 2) if mirrored else batch
    with torch.inference_mode():
        for part in torch.split(crops, step):
            images = to_input(part.to(device)).contiguous(memory_format=torch.channels_last)
            views = [images, images.flip(3)] if mirrored else [images]
            # A batch of one crop cannot hold it and its mirror.
            joined = [torch.cat(views)] if batch > 1 else views
            logits = torch.cat([network(view) for view in joined]).double()
            if not bool(logits.isfinite().all()):
                raise UserError(
                    "the network's outputs are not finite: the checkpoint is of a diverged run; "
                    "choose an earlier one"
                )
            for kept, half in zip(outputs, torch.split(logits.softmax(1), len(part)), strict=False):
                kept.append(half)
        return torch.cat([*outputs[0], *outputs[1]])


def _average(
    result: MultiCropResult,
    softmax: Tensor,
    rows: Tensor,
    images: NDArray[np.int64],
    all_labels: NDArray[np.int64],
) -> None:
    """Average images' crops and count: `softmax` (rows, C), `rows` (n, K), `images` (n,)."""
    labels = torch.from_numpy(all_labels[images]).to(softmax.device)
    with torch.inference_mode():
        sums = softmax[rows].cumsum(1)  # (n, K, C): over the first 1 to K crops
        ranks = _ranks(sums, labels)  # (n, K)
        mean = sums[:, -1] / rows.shape[1]
        correct = torch.stack([(ranks == 0).sum(0), (ranks < TOP).sum(0)], 1)
        result.correct_by_crops[:] += correct.cpu().numpy()
        result.ranks[images] = ranks[:, -1].cpu().numpy()
        # NumPy's argmax takes the first of equal ones, as the ranks do; torch's takes any.
        result.predicted[images] = mean.cpu().numpy().argmax(1)
        result.probabilities[images] = mean.half().cpu().numpy()


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Place of the label among the classes, (n, K) from (n, K, C) and (n,)."""
    at = labels.clamp(min=0)[:, None, None].expand(-1, scores.shape[1], 1)
    own = scores.gather(2, at)
    lower = torch.arange(scores.shape[2], device=scores.device) < at
    places = (scores > own).sum(2) + ((scores == own) & lower).sum(2)
    return torch.where(labels[:, None] < 0, NEVER, places)


def crop_batches(
    source: ImageSource,
    setting: CropSetting,
    image_size: int,
    batch: int,
    workers: int | None,
    backend: Backend = Backend.pillow,
) -> Generator[CropBatch, None, None]:
    """Decode and cut every image once, in order, about `batch` crops at a time."""
    images = max(1, batch // setting.count)
    ranges = (range(i, min(i + images, len(source))) for i in range(0, len(source), images))
    size = batch_bytes(images * setting.count, image_size)
    return produced(_CutImages(source, setting, image_size, backend), ranges, workers, size)


@dataclass(frozen=True)
class _CutImages:
    source: ImageSource
    setting: CropSetting
    image_size: int
    backend: Backend

    def __call__(self, request: range) -> CropBatch:
        size = self.image_size
        pixels: list[NDArray[np.uint8]] = [np.empty((0, size, size, 3), np.uint8)]
        rows = np.zeros((len(request), self.setting.count), np.int64)
        unreadable: dict[int, str] = {}
        mirrored = np.zeros(self.setting.count, np.int64)
        start = 0
        for place, index in enumerate(request):
            try:
                picture = read_image(self.source, index, self.backend)
                picture.load()
            except UnreadableImage as error:
                unreadable[index] = error.reason
                continue
            plan = cut_plan(self.setting, picture.width, picture.height, size)
            pixels.append(cut_distinct(picture, self.setting, size))
            rows[place] = np.array(plan.slots) + start
            mirrored = np.array(plan.mirrored, np.int64)
            start += plan.distinct
        readable = [place for place, index in enumerate(request) if index not in unreadable]
        rows[readable] += start * mirrored  # the mirrors' rows follow all the others
        crops = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2)
        return CropBatch(request, crops, torch.from_numpy(rows), unreadable)


def cut_distinct(picture: Picture, setting: CropSetting, size: int) -> NDArray[np.uint8]:
    """Cut the distinct, unmirrored crops of an image; loaded, if it is not to be decoded for each.

    Returns:
        uint8 (distinct, S, S, 3), by slot.
    """
    plan = cut_plan(setting, picture.width, picture.height, size)
    pixels = np.empty((plan.distinct, size, size, 3), np.uint8)
    for cut in plan.cuts:
        region = picture.resized(cut.box, cut.side, Image.Resampling.BILINEAR)
        for left, top, slot in cut.places:
            pixels[slot] = region[top : top + size, left : left + size]
    return pixels
