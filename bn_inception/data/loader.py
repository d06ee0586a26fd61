"""Batches of decoded, cut images, read by worker processes.

A batch is a pure function of its request (a step, or a range of indices), so it is bit for bit the
same with any number of workers, including none. Workers draw the factors of the distortion;
`photometric.to_input` applies them on the device.
"""

import itertools
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from bn_inception.data.config import OnError
from bn_inception.data.order import TrainingOrder, image_generator
from bn_inception.data.parallel import batch_bytes, produced
from bn_inception.data.pixels.backend import Backend, Picture, open_picture
from bn_inception.data.pixels.crops import Boxes, cut_crops, cut_training, single_crops
from bn_inception.data.pixels.decode import UnreadableImage
from bn_inception.data.pixels.photometric import AugmentationConfig, Photometric, draw_factors
from bn_inception.data.source import ImageSource
from bn_inception.errors import UserError
from bn_inception.files import first_line

# Unreadable images in a row after which `skip` gives up: single files may be damaged, but a hundred
# in a row mean a lost disk or network.
MAX_SKIPPED = 100

T = TypeVar("T")


class TrainingBatch(NamedTuple):
    """One step's images."""

    images: Tensor  # uint8 (N, 3, S, S), in channels_last memory
    factors: Tensor  # float32 (N, K), for `photometric.to_input`
    labels: Tensor  # int64 (N,)
    # (identity, reason) of every unreadable image that the next readable one replaced; the
    # identity contains no path of this machine
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
    """The batches of steps `start_step` to `stop_step` - 1, in order; errors as of `produced`.

    Workers start at the first `next` and stop when the iterator ends, fails or is closed.
    `on_error=skip` replaces an unreadable image by the next readable one (cyclic, with its own
    label and the random draws of the place it takes). `places` is the part of every batch that this
    process reads; an image does not depend on which process reads it.
    """
    assert order.images == len(source)
    requests = (
        [each[places].tolist() for each in order.batch(step)]
        for step in range(start_step, stop_step)
    )
    reader = _Reader(source, image_size, backend, on_error)
    make = partial(reader.training, augmentation.photometric, seed)
    here = len(range(order.batch_size)[places])
    return produced(make, requests, workers, batch_bytes(here, image_size))


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
    """Every image of `source` exactly once, in order, in batches of `batch`; the last is smaller.

    `on_error=skip` leaves an unreadable image in the batch, marked. `share` is (rank, size) of the
    process, which reads its part of the images; see `shared_ranges`.
    """
    reader = _Reader(source, image_size, backend, on_error)
    ranges = shared_ranges(len(source), batch, *share)
    # A part's last batch may have one image more than `batch`.
    most = (batch + 1) * len(boxes(image_size, image_size, image_size))
    return produced(
        partial(reader.validation, boxes), ranges, workers, batch_bytes(most, image_size)
    )


def shared_ranges(images: int, batch: int, rank: int, size: int) -> list[range]:
    """Divide the indices 0 to `images` - 1 among `size` processes and cut one's part into batches.

    Over all ranks every index occurs exactly once. Every rank has the same number of batches, so
    that the processes can synchronize after each. The last one may have one image more than
    `batch`, if the parts differ by one.
    """
    if images < size:
        raise UserError(
            f"validation images: {images} cannot be divided among {size} processes; use fewer"
        )
    start, stop = images * rank // size, images * (rank + 1) // size
    batches = -(-(images // size) // batch)
    cuts = [start + batch * number for number in range(batches)] + [stop]
    return [range(*pair) for pair in itertools.pairwise(cuts)]


def read_image(source: ImageSource, index: int, backend: Backend) -> Picture:
    """Read and open one image; errors as of `open_picture`."""
    try:
        data = source.read(index)
    except OSError as error:
        raise UnreadableImage(source.name(index), first_line(error)) from error
    return open_picture(data, source.name(index), backend)


class _Reader(NamedTuple):
    """Makes batches of crops of `size` pixels."""

    source: ImageSource
    size: int
    backend: Backend
    on_error: OnError

    def read(self, index: int, cut: Callable[..., T], **how: Any) -> T | str:
        """The result of `cut` for an image, or why it cannot be read, if that does not fail."""
        try:
            return cut(read_image(self.source, index, self.backend), size=self.size, **how)
        except UnreadableImage as error:
            if self.on_error is OnError.fail:
                raise error.refusal() from error
            return error.reason

    def training(
        self, photometric: Photometric, seed: int, request: list[list[int]]
    ) -> TrainingBatch:
        """Make a batch; a request is the epochs and the indices of its images."""
        source, count = self.source, len(request[0])
        # (N, S, S, 3) in memory, seen as (N, 3, S, S): the pictures' layout, and channels_last.
        images = np.empty((count, self.size, self.size, 3), np.uint8).transpose(0, 3, 1, 2)
        factors, taken, replaced = [], list[int](), list[tuple[str, str]]()
        most = min(MAX_SKIPPED, len(source))
        for out, epoch, index in zip(images, *request, strict=True):
            for standing in (number % len(source) for number in range(index, index + most)):
                generator = image_generator(seed, epoch, index)  # of the place, not of the image
                made = self.read(standing, cut_training, generator=generator)
                if not isinstance(made, str):
                    break
                replaced.append((source.identity(standing), made))
            else:
                raise UserError(
                    f"{most} images in a row cannot be read, the last is {source.name(standing)}: "
                    f"{made}; check the disk or the data set"
                )
            out[:] = made
            taken.append(standing)
            factors.append(draw_factors(photometric, generator))
        return TrainingBatch(
            torch.from_numpy(images),
            torch.from_numpy(np.stack(factors)),
            torch.from_numpy(source.labels[taken]),
            replaced,
        )

    def validation(self, boxes: Boxes, request: range) -> ValidationBatch:
        """Make a batch of the images with these indices."""
        source, size = self.source, self.size
        nothing = np.zeros((1, size, size, 3), np.uint8), [0] * len(boxes(size, size, size))
        pixels, rows, unreadable, start = [], [], list[tuple[str, str]](), 0
        readable = torch.ones(len(request), dtype=torch.bool)
        for place, index in enumerate(request):
            made = self.read(index, cut_crops, boxes=boxes)
            if isinstance(made, str):
                readable[place] = False
                unreadable.append((source.name(index), made))
                made = nothing
            pixels.append(made[0])
            rows.append(start + np.array(made[1]))
            start += len(made[0])
        return ValidationBatch(
            torch.from_numpy(np.concatenate(pixels).transpose(0, 3, 1, 2)),
            torch.from_numpy(source.labels[request.start : request.stop].copy()),
            readable,
            unreadable,
            torch.from_numpy(np.stack(rows)),
        )
