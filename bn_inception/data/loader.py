"""Batches of decoded, cut images, read by worker processes.

What a batch holds is a pure function of its request (step, or a range of indices), so it is the
same bit for bit with any number of workers, none included. Workers take the distortion's factors
along; `photometric.to_input` applies them on the device.
"""

import functools
import itertools
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bn_inception.data import shared_memory
from bn_inception.data.config import OnError
from bn_inception.data.order import Draws, TrainingOrder
from bn_inception.data.parallel import Failed, produced
from bn_inception.data.pixels.backend import Backend, open_picture
from bn_inception.data.pixels.crops import Boxes, Picture, cut_crops, cut_training, single_crops
from bn_inception.data.pixels.decode import UnreadableImage
from bn_inception.data.pixels.photometric import AugmentationConfig, Photometric, draw_factors
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError
from bn_inception.files import first_line

# Unreadable images in a row that `skip` passes over before it gives up: single files are damaged,
# a hundred neighbours are a disk or a network that is gone.
MAX_SKIPPED = 100

TrainingRequest = tuple[int, NDArray[np.int64], NDArray[np.int64]]
"""Step, and the epoch and index of each image."""


class TrainingBatch(NamedTuple):
    """One step's images."""

    images: Tensor  # uint8 (N, 3, S, S), in channels_last memory
    factors: Tensor  # float32 (N, K), for `photometric.to_input`
    labels: Tensor  # int64 (N,)
    # (identity, reason) of every unreadable image whose place the next readable one took; the
    # identity holds no path of this machine
    replaced: list[tuple[str, str]]


class ValidationBatch(NamedTuple):
    """Consecutive held-out images; the last batch may be smaller."""

    # uint8 (U, 3, S, S), in channels_last memory: distinct crops; zeros for an unreadable image
    images: Tensor
    labels: Tensor  # int64 (N,)
    readable: Tensor  # bool (N,); an unreadable image stays in the batch, to be counted as an error
    unreadable: list[tuple[str, str]]  # (name, reason) of each that is not readable
    rows: Tensor  # int64 (N, K): of each image's crops the places among `images`


def training_batches(
    source: ImageSource,
    order: TrainingOrder,
    *,
    start_step: int,
    stop_step: int,
    image_size: int,
    augmentation: AugmentationConfig,
    seed: int,
    workers: int | None,
    on_error: OnError,
    backend: Backend = Backend.pillow,
    places: slice = slice(None),
) -> Generator[TrainingBatch, None, None]:
    """The batches of steps `start_step` to `stop_step` - 1, in order.

    Workers start at the first `next` and stop when the iterator ends, fails or is closed.

    Args:
        order: which images a step holds; made for `len(source)` images.
        image_size: S in pixels.
        seed: the run's, for crops, mirrors, filters and distortion.
        workers: processes; 0 reads in this one, None is `default_workers()`.
        on_error: `skip` puts the next readable image (cyclic, with its own label, with the draws
            of the place it takes) where one cannot be read.
        places: the part of every batch that is read, so that processes can share a batch; an image
            is the same whoever reads it.

    Raises:
        UserError: an image cannot be read and `on_error` is fail, or too many in a row; a worker
            died.
    """
    assert order.images == len(source)
    requests = (_request(order, step, places) for step in range(start_step, stop_step))
    images = _TrainingImages(source, image_size, augmentation.photometric, seed, on_error, backend)
    here = len(range(order.batch_size)[places])
    return produced(images, requests, workers, shared_memory.batch_bytes(here, image_size))


def validation_batches(
    source: ImageSource,
    *,
    image_size: int,
    batch: int,
    workers: int | None,
    on_error: OnError,
    backend: Backend = Backend.pillow,
    share: tuple[int, int] = (0, 1),
    boxes: Boxes = single_crops,
) -> Generator[ValidationBatch, None, None]:
    """Every image of `source` exactly once, in its order, `batch` at a time, the tail included.

    Args:
        image_size: S in pixels.
        workers: as in `training_batches`.
        on_error: `skip` leaves an unreadable image in the batch, marked.
        share: (rank, size) of the process: it reads its part of the images, see `shared_ranges`.
        boxes: the crops of an image; by default the single centre crop.

    Raises:
        UserError: an image cannot be read and `on_error` is fail; a worker died; fewer images
            than processes.
    """
    ranges = iter(shared_ranges(len(source), batch, *share))
    images = _ValidationImages(source, image_size, on_error, backend, boxes)
    # One more image than `batch` may be in a part's last one.
    most = (batch + 1) * len(boxes(image_size, image_size, image_size))
    return produced(images, ranges, workers, shared_memory.batch_bytes(most, image_size))


def _request(order: TrainingOrder, step: int, places: slice) -> TrainingRequest:
    epochs, indices = order.batch(step)
    return step, epochs[places], indices[places]


def shared_ranges(images: int, batch: int, rank: int, size: int) -> list[range]:
    """Divide the indices 0 to `images` - 1 among `size` processes and cut one's part into batches.

    Over all ranks every index occurs exactly once: nothing is padded, no tail is dropped. Every
    rank has the same number of batches, so that they can meet after each. The last batch of a rank
    is what is left: at most `batch`, and one image more where the parts differ by one.

    Raises:
        UserError: fewer images than processes.
    """
    if images < size:
        raise UserError(
            f"validation images: {images} cannot be divided among {size} processes; use fewer"
        )
    start, stop = images * rank // size, images * (rank + 1) // size
    batches = -(-(images // size) // batch)
    cuts = [start + batch * number for number in range(batches)] + [stop]
    return [range(*pair) for pair in itertools.pairwise(cuts)]


@dataclass(frozen=True)
class _TrainingImages:
    source: ImageSource
    image_size: int
    photometric: Photometric
    seed: int
    on_error: OnError
    backend: Backend

    def __call__(self, request: TrainingRequest) -> TrainingBatch | Failed:
        _, epochs, indices = request
        count = len(indices)
        # (N, S, S, 3) in memory, seen as (N, 3, S, S): the pictures' layout, and channels_last.
        pixels = np.empty((count, self.image_size, self.image_size, 3), np.uint8)
        images = pixels.transpose(0, 3, 1, 2)
        factors: list[NDArray[np.float32]] = []
        taken: list[int] = []
        replaced: list[tuple[str, str]] = []
        draws = _draws(self.seed)
        for place, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist(), strict=True)):
            try:
                taken.append(self._cut(images[place], (epoch, index), draws, replaced))
            except UnreadableImage as error:
                return _failure(error)
            factors.append(draw_factors(self.photometric, draws))
        return TrainingBatch(
            torch.from_numpy(images),
            torch.from_numpy(np.stack(factors)),
            torch.from_numpy(self.source.labels[taken]),
            replaced,
        )

    def _cut(
        self,
        out: NDArray[np.uint8],
        place: tuple[int, int],
        draws: Draws,
        replaced: list[tuple[str, str]],
    ) -> int:
        """Cut the image at `place` (epoch, index), or the first readable after it, into `out`.

        Returns:
            the index of the image taken; `draws` stands after the cut's own.
        """
        epoch, index = place
        last: UnreadableImage | None = None
        for skipped in range(min(MAX_SKIPPED, len(self.source))):
            taken = (index + skipped) % len(self.source)
            draws.go_to(epoch, index)  # the place's, whichever image takes it
            try:
                picture = read_image(self.source, taken, self.backend)
                out[:] = cut_training(picture, self.image_size, draws)
            except UnreadableImage as error:
                if self.on_error is OnError.fail:
                    raise
                last = error
                replaced.append((self.source.identity(taken), error.reason))
            else:
                return taken
        raise UserError(
            f"{min(MAX_SKIPPED, len(self.source))} images in a row cannot be read, the last is "
            f"{last}; check the disk or the data set"
        )


@dataclass(frozen=True)
class _ValidationImages:
    source: ImageSource
    image_size: int
    on_error: OnError
    backend: Backend
    boxes: Boxes

    def __call__(self, request: range) -> ValidationBatch | Failed:
        size = self.image_size
        nothing = np.zeros((1, size, size, 3), np.uint8)
        pixels: list[NDArray[np.uint8]] = []
        rows = np.zeros((len(request), len(self.boxes(size, size, size))), np.int64)
        readable = np.ones(len(request), np.bool_)
        unreadable: list[tuple[str, str]] = []
        start = 0
        for place, index in enumerate(request):
            try:
                picture = read_image(self.source, index, self.backend)
                cut, places = cut_crops(picture, self.boxes, size)
            except UnreadableImage as error:
                if self.on_error is OnError.fail:
                    return _failure(error)
                readable[place] = False
                unreadable.append((error.name, error.reason))
                cut, places = nothing, [0]
            pixels.append(cut)
            rows[place] = start + np.array(places)
            start += len(cut)
        return ValidationBatch(
            torch.from_numpy(np.concatenate(pixels).transpose(0, 3, 1, 2)),
            torch.from_numpy(self.source.labels[request.start : request.stop].copy()),
            torch.from_numpy(readable),
            unreadable,
            torch.from_numpy(rows),
        )


@functools.lru_cache(maxsize=1)
def _draws(seed: int) -> Draws:
    return Draws(seed)


def read_image(source: ImageSource, index: int, backend: Backend) -> Picture:
    """Read and open one image.

    Raises:
        UnreadableImage: the file cannot be read or decoded; a damaged one may say so only when it
            is loaded or cut, see `backend.open_picture`.
    """
    try:
        data = source.read(index)
    except OSError as error:
        raise UnreadableImage(source.name(index), first_line(error)) from error
    return open_picture(data, source.name(index), backend)


def _failure(error: UnreadableImage) -> Failed:
    return Failed(
        f"{error.name} cannot be read: {error.reason}; "
        "repair or remove it, or set data.on_error=skip"
    )
