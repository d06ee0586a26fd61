"""The input pipeline beside torchvision's recipe: images a second, by number of worker processes.

All ways read the same images of the user's own data set, at the same size and batch.
"""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler, default_collate

from bn_inception.benchmark.reference import FULL_JITTER, train_transform
from bn_inception.benchmark.timing import (
    CPU,
    Measured,
    Row,
    Stream,
    Way,
    about_here,
    each_other_way_round,
    take_turn,
)
from bn_inception.data import (
    AugmentationConfig,
    Backend,
    DataConfig,
    ImageSource,
    OnError,
    OrderConfig,
    Photometric,
    TrainingOrder,
    UnreadableImage,
    open_sources,
    refuse_unread,
    stored_order,
    training_batches,
)
from bn_inception.data.loader import read_image
from bn_inception.data.parallel import cores
from bn_inception.errors import require_at_least
from bn_inception.paper.results import MINI_BATCH
from bn_inception.quoting import say

ENDLESS = 2**40
LOADER, FULL = "bn-inception", ", full distortion"
REFERENCE, REFERENCE_FULL = "torchvision reference", "torchvision reference, full ColorJitter"


@dataclass
class InputBenchmark:
    """The keys `benchmark.*` of `configs/benchmark_input.yaml`, which says what they mean."""

    images: int = 1024
    rounds: int = 5
    workers: list[int] | None = None
    image_size: int = 224

    def __post_init__(self) -> None:
        for name in ("images", "rounds", "image_size"):
            require_at_least(f"benchmark.{name}", getattr(self, name), 1)
        require_at_least("benchmark.workers", min(self.workers or [0]), 0)

    def counts(self) -> list[int]:
        """Numbers of workers, rising, each once; 0 reads in the main process."""
        if self.workers:
            return sorted(set(self.workers))
        return [0, *(2**power for power in range(10) if 2**power < cores()), cores()]


class Chosen:
    """Images spread evenly over `source`, `wanted` of them, as a source that every way reads.

    Each is decoded once: all find the files in the page cache. UserError if one cannot be read.
    """

    def __init__(self, source: ImageSource, wanted: int) -> None:
        self._source, self._indices = source, stored_order(len(source))[:wanted].tolist()
        self.labels = source.labels[self._indices]
        for index in self._indices:
            try:
                read_image(source, index, Backend.pillow)  # which decodes at once
            except UnreadableImage as error:
                raise error.refusal() from error

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self.read(index), int(self.labels[index])

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        return self._source.read(self._indices[index])

    def name(self, index: int) -> str:
        """The image's path."""
        return self._source.name(self._indices[index])


def benchmark_input(data: DataConfig, config: InputBenchmark) -> Measured:
    """Measure every way on the data set's training images."""
    refuse_unread(
        data,
        "benchmark input",
        {
            "workers": f"give benchmark.workers=[{data.workers}]",
            "backend": "leave it out: both backends are measured, each in rows of its own",
            "on_error": "leave it out: an image that cannot be read ends the benchmark",
        },
    )
    sources = open_sources(data)
    for warning in sources.warnings:
        say(f"warning: {warning}")
    images = Chosen(sources.train, config.images)
    ways = {count: ways_of(images, config.image_size, count) for count in config.counts()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker; and a pool of threads would not survive the forks
    try:
        for number in range(config.rounds):
            for workers, here in ways.items():
                say(f"round {number + 1} of {config.rounds}, {workers} workers")
                lead = max(1, workers)
                units = -(-config.images // (MINI_BATCH * lead)) * lead
                for way in each_other_way_round(here, number):
                    take_turn(way, CPU, untimed=way.warm_up, units=units)
    finally:
        torch.set_num_threads(threads)
    rows = [row for workers, here in ways.items() for row in rows_of(here, workers)]
    about = about_here(sources.train.fingerprint)
    about["settings"] = {"images": len(images), "images_a_turn": config.images,
                         "rounds": config.rounds, "batch": MINI_BATCH,
                         "image_size": config.image_size, "data": data.kind.value}  # fmt: skip
    return Measured(rows, about)


def ways_of(images: Chosen, size: int, workers: int) -> list[Way]:
    """All ways with so many workers, in the order of the table; a unit is a batch of 32."""
    seeds, lead = itertools.count(), max(1, workers)  # timed when every worker has delivered

    def ours(name: str, photometric: Photometric, note: str, by: Backend = Backend.fast) -> Way:
        source: Any = images

        def start() -> Stream:
            seed = next(seeds)
            return training_batches(
                source, TrainingOrder(len(source), MINI_BATCH, seed, **vars(OrderConfig())),
                seed=seed, augmentation=AugmentationConfig(photometric), image_size=size,
                start_step=0, stop_step=ENDLESS, workers=workers, backend=by, on_error=OnError.fail,
            )  # fmt: skip

        return Way(name, start, lead, note)

    def torchs(name: str, transform: Callable[[bytes], Any], note: str = "") -> Way:
        return Way(name, lambda: by_torch(images, transform, workers, next(seeds)), lead, note)

    none, full = Photometric.none, Photometric.full
    plain, jittered = train_transform(size), train_transform(size, FULL_JITTER)
    return [
        torchs("reading alone", len, "bytes of the files, not decoded"),
        torchs("decoding alone (Pillow)", lambda d: _opened(d).width, "no crop or resize"),
        ours(LOADER, none, "uint8; normalization is the device's part"),
        ours(f"{LOADER}, data.backend=pillow", none, "the same", Backend.pillow),
        ours(LOADER + FULL, full, "uint8, factors drawn; distortion is the device's part"),
        torchs(REFERENCE, lambda data: plain(_opened(data))),
        torchs(REFERENCE_FULL, lambda data: jittered(_opened(data))),
    ]


def by_torch(images: Chosen, transform: Callable[[bytes], Any], workers: int, seed: int) -> Stream:
    """Batches of torch's own DataLoader: `transform` of every image's bytes, shuffled."""
    dataset: Any = images
    generator = torch.Generator().manual_seed(seed)

    def collated(batch: list[tuple[bytes, int]]) -> Any:
        return default_collate([(transform(data), label) for data, label in batch])

    batches: Any = iter(
        DataLoader(
            dataset,
            batch_size=MINI_BATCH,
            sampler=RandomSampler(dataset, num_samples=ENDLESS, generator=generator),
            num_workers=workers,
            collate_fn=collated,
            generator=generator,
            multiprocessing_context="fork" if workers else None,  # transforms are closures
        )
    )
    try:
        yield from batches
    finally:
        if workers:
            batches._shutdown_workers()  # now, not when the iterator is collected


def _opened(data: bytes) -> Image.Image:
    """As torchvision's ImageFolder opens a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def rows_of(ways: Sequence[Way], workers: int) -> list[Row]:
    """A row a way; full distortion is set beside the reference's full ColorJitter."""
    named = {way.name: way for way in ways}
    rows = []
    for way in ways:
        full = way.name.endswith(FULL)
        beside = named[REFERENCE_FULL if full or way.name == REFERENCE_FULL else REFERENCE]
        assert way.median is not None
        rows.append(
            {
                "name": way.name,
                "workers": workers,
                "images_per_second": MINI_BATCH / way.median,
                "ratio_to_reference": way.speedup(beside),
                "note": way.note + "; ratio to the reference with full ColorJitter" * full,
            }
        )
    return rows
