"""Our own loader, and what bounds it: reading alone, decoding alone."""

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bn_inception.benchmark.ways import Images, Peer, Stream, Way
from bn_inception.data import (
    AugmentationConfig,
    Backend,
    ImageSource,
    OnError,
    Photometric,
    TrainingOrder,
    to_input,
    training_batches,
)
from bn_inception.data.loader import produced, read_image
from bn_inception.data.order import OrderConfig
from bn_inception.data.photometric import draw_factors
from bn_inception.training.session import choose_device
from bn_inception.training.settings import Device
from bn_inception.training.transfer import on_device

READING = "reading alone"
DECODING = "decoding alone (Pillow)"
LOADER = "bn-inception"
LOADER_PILLOW = "bn-inception, data.backend=pillow"
LOADER_FULL = "bn-inception, full distortion"
COUNTED_FULL = "bn-inception + to_input, full distortion"

_ENDLESS = 2**40  # steps


def device_name(device: Device) -> str:
    """The device as a person calls it: "CPU", or the GPU's name."""
    place = choose_device(device)
    return "CPU" if place.type == "cpu" else torch.cuda.get_device_name(place)


def peer(device: Device, name: str) -> Peer:
    """The loader without and with full distortion, and with the device's part of the work.

    Args:
        device: for `to_input`.
        name: of it.
    """
    counted = f"with normalization, in the main process on {name}"
    distorted = f"with distortion and normalization, in the main process on {name}"
    apart = "uint8; normalization is the device's part"
    factors = "uint8, factors drawn; distortion is the device's part"
    return Peer(
        (
            Way(READING, partial(_alone, work=_read), note="bytes of the files, not decoded"),
            Way(DECODING, partial(_alone, work=_decode), note="whole images, no crop or resize"),
            Way(LOADER, partial(_loaded, photometric=Photometric.none), note=apart),
            Way(
                LOADER_PILLOW,
                partial(_loaded, photometric=Photometric.none, backend=Backend.pillow),
                note=apart,
            ),
            Way(
                f"{LOADER} + to_input",
                partial(_loaded, photometric=Photometric.none, device=device),
                note=counted,
            ),
            Way(LOADER_FULL, partial(_loaded, photometric=Photometric.full), True, factors),
            Way(
                COUNTED_FULL,
                partial(_loaded, photometric=Photometric.full, device=device),
                True,
                distorted,
            ),
        )
    )


def _order(images: Images, seed: int) -> TrainingOrder:
    config = OrderConfig()
    return TrainingOrder(
        len(images.source),
        images.batch,
        seed,
        config.within_shard_shuffling,
        config.shard_size,
    )


def _loaded(
    images: Images,
    workers: int,
    seed: int,
    *,
    photometric: Photometric,
    device: Device | None = None,
    backend: Backend = Backend.fast,
) -> Stream:
    batches = training_batches(
        images.source,
        _order(images, seed),
        start_step=0,
        stop_step=_ENDLESS,
        image_size=images.size,
        augmentation=AugmentationConfig(photometric),
        seed=seed,
        workers=workers,
        on_error=OnError.fail,
        backend=backend,
    )
    with closing(batches):
        if device is None:
            for batch in batches:
                yield len(batch.labels)
            return
        place = choose_device(device)
        # Before the workers start: a first call that takes long would find batches waiting.
        _warm_up(images, photometric, place)
        for batch in on_device(batches, place):
            to_input(batch.images, batch.factors)
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            yield len(batch.labels)


def _warm_up(images: Images, photometric: Photometric, place: torch.device) -> None:
    pixels = torch.zeros(images.batch, images.size, images.size, 3, dtype=torch.uint8, device=place)
    factors = draw_factors(photometric, np.random.default_rng(0))
    batch = torch.from_numpy(factors).to(place).expand(images.batch, -1)
    to_input(pixels.permute(0, 3, 1, 2), batch).sum().item()


def _read(source: ImageSource, index: int) -> None:
    source.read(index)


def _decode(source: ImageSource, index: int) -> None:
    read_image(source, index, Backend.pillow)


@dataclass(frozen=True)
class _Work:
    """Does something to every image of a batch and hands over no more than their number."""

    source: ImageSource
    work: Callable[[ImageSource, int], None]

    def __call__(self, indices: NDArray[np.int64]) -> int:
        for index in indices.tolist():
            self.work(self.source, index)
        return len(indices)


def _alone(
    images: Images, workers: int, seed: int, *, work: Callable[[ImageSource, int], None]
) -> Stream:
    order = _order(images, seed)
    requests = (order.batch(step)[1] for step in itertools.count())
    with closing(produced(_Work(images.source, work), requests, workers, 0)) as done:
        yield from done
