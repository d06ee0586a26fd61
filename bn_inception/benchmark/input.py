"""The input pipeline beside torchvision's recipe: images a second, by number of worker processes.

All ways read the same images of the user's own data set, at the same size and batch.
"""

import io
import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from bn_inception.benchmark.reference import FULL_JITTER, train_transform
from bn_inception.benchmark.rows import Measured, about_here, in_words, refuse_below
from bn_inception.benchmark.timing import CPU, Stream, Way, each_other_way_round, take_turn
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
    default_workers,
    open_sources,
    refuse_unread,
    stored_order,
    to_input,
    training_batches,
)
from bn_inception.data.loader import read_image
from bn_inception.data.parallel import cores
from bn_inception.errors import UserError
from bn_inception.paper.results import MINI_BATCH
from bn_inception.training import choose_device
from bn_inception.training.settings import Device
from bn_inception.training.transfer import on_device

ENDLESS = 2**40
LOADER, FULL, TO_INPUT = "bn-inception", ", full distortion", " + to_input"
REFERENCE, REFERENCE_FULL = "torchvision reference", "torchvision reference, full ColorJitter"


@dataclass
class InputBenchmark:
    """The keys `benchmark.*` of `configs/benchmark_input.yaml`, which says what they mean."""

    images: int = 1024
    rounds: int = 5
    workers: list[int] | None = None
    image_size: int = 224
    device: Device = Device.auto
    step_images_per_second: float | None = None

    def __post_init__(self) -> None:
        for name in ("images", "rounds", "image_size"):
            refuse_below(1, f"benchmark.{name}", getattr(self, name))
        if self.workers is not None and (not self.workers or min(self.workers) < 0):
            raise UserError(
                f"benchmark.workers: {self.workers} is no list of numbers of processes; give "
                "such as [0,1,4], where 0 reads in the main process"
            )
        if self.step_images_per_second is not None and not self.step_images_per_second > 0:
            raise UserError(
                f"benchmark.step_images_per_second: {self.step_images_per_second} is not positive"
            )

    def counts(self) -> list[int]:
        """Numbers of workers, rising, each once."""
        if self.workers is not None:
            return sorted(set(self.workers))
        return [0, *(2**power for power in range(10) if 2**power < cores()), cores()]


@dataclass(frozen=True)
class InputRow:
    """The speed of one way; the ratio is to the reference with as many workers."""

    name: str
    workers: int
    images_per_second: float
    ratio_to_reference: float
    note: str = ""


class Chosen:
    """Images spread evenly over `source`, `wanted` of them, as a source that every way reads.

    Each is decoded once, so that no way meets one that cannot be read, and all find the files in
    the page cache.

    Raises:
        UserError: one cannot be read and `on_error` is fail; none can be read.
    """

    def __init__(
        self, source: ImageSource, wanted: int, on_error: OnError, say: Callable[[str], None]
    ) -> None:
        self._source, self._indices = source, list[int]()
        for index in stored_order(len(source)).tolist():
            try:
                read_image(source, index, Backend.pillow)  # which decodes at once
            except UnreadableImage as error:
                if on_error is OnError.fail:
                    raise error.refusal() from error
                say(f"left out: {error}")
                continue
            self._indices.append(index)
            if len(self) == wanted:
                break
        if not self._indices:
            raise UserError(f"data.root: none of {len(source):,} training images can be read")
        self.labels = source.labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        return self._source.read(self._indices[index])

    def name(self, index: int) -> str:
        """The image's path."""
        return self._source.name(self._indices[index])


def benchmark_input(
    data: DataConfig, config: InputBenchmark, say: Callable[[str], None]
) -> Measured:
    """Measure every way on the data set's training images.

    Raises:
        UserError: the data set or the device cannot be used; an image cannot be read and
            `data.on_error` is fail; too little shared memory for so many workers.
    """
    refuse_unread(
        data,
        "benchmark input",
        {
            "workers": f"give benchmark.workers=[{data.workers}]",
            "backend": "leave it out: both backends are measured, each in rows of its own",
        },
    )
    device, sources = choose_device(config.device), open_sources(data)
    for warning in sources.warnings:
        say(f"warning: {warning}")
    images = Chosen(sources.train, config.images, data.on_error, say)
    ways = {count: ways_of(images, config.image_size, count, device) for count in config.counts()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker; and a pool of threads would not survive the forks
    try:
        for number in range(config.rounds):
            for workers, here in ways.items():
                say(f"round {number + 1} of {config.rounds}, {in_words(workers)}")
                lead = max(1, workers)
                units = -(-config.images // (MINI_BATCH * lead)) * lead
                for way in each_other_way_round(here, number):
                    take_turn(way, CPU, untimed=way.warm_up, units=units)
    finally:
        torch.set_num_threads(threads)
    rows = [row for workers, here in ways.items() for row in rows_of(here, workers)]
    about = about_here(device, sources.train.fingerprint())
    about["settings"] = {"images": len(images), "images_a_turn": config.images,
                         "rounds": config.rounds, "batch": MINI_BATCH,
                         "image_size": config.image_size, "data": data.kind.value}  # fmt: skip
    return Measured(rows, sentences(rows, default_workers(), config.step_images_per_second), about)


def ways_of(images: Chosen, size: int, workers: int, device: torch.device) -> list[Way]:
    """All ways with so many workers, in the order of the table; a unit is a batch of 32."""
    seeds, lead = itertools.count(), max(1, workers)  # timed when every worker has delivered
    counted = f"the device's part too, in the main process on {device.type}"

    def ours(name: str, photometric: Photometric, note: str, by: Backend = Backend.fast) -> Way:
        on = device if TO_INPUT in name else None
        how: dict[str, Any] = {"image_size": size, "workers": workers, "backend": by}
        how["on_error"] = OnError.fail
        start = partial(loaded, images, photometric, on, **how)
        return Way(name, lambda: start(seed=next(seeds)), lead, note)

    def torchs(name: str, transform: Callable[[bytes], Any], note: str = "") -> Way:
        return Way(name, lambda: by_torch(images, transform, workers, next(seeds)), lead, note)

    none, full = Photometric.none, Photometric.full
    plain, jittered = train_transform(size), train_transform(size, FULL_JITTER)
    return [
        torchs("reading alone", len, "bytes of the files, not decoded"),
        torchs("decoding alone (Pillow)", lambda d: _opened(d).width, "no crop or resize"),
        ours(LOADER, none, "uint8; normalization is the device's part"),
        ours(f"{LOADER}, data.backend=pillow", none, "the same", Backend.pillow),
        ours(LOADER + TO_INPUT, none, counted),
        ours(LOADER + FULL, full, "uint8, factors drawn; distortion is the device's part"),
        ours(LOADER + TO_INPUT + FULL, full, counted),
        torchs(REFERENCE, lambda data: plain(_opened(data))),
        torchs(REFERENCE_FULL, lambda data: jittered(_opened(data))),
    ]


def loaded(
    source: Any,
    photometric: Photometric,
    device: torch.device | None = None,
    *,
    seed: int,
    batch: int = MINI_BATCH,
    **how: Any,
) -> Stream:
    """Our loader as training uses it; with `device`, what the step does to a batch first, too.

    `how` is what `training_batches` takes beside: image_size, workers, backend, on_error.
    """
    order = TrainingOrder(len(source), batch, seed, **vars(OrderConfig()))
    augmentation = AugmentationConfig(photometric)
    steps: dict[str, Any] = {"start_step": 0, "stop_step": ENDLESS}
    batches = training_batches(source, order, seed=seed, augmentation=augmentation, **steps, **how)
    with closing(batches):
        for each in batches if device is None else on_device(batches, device):
            if device is not None:
                to_input(each.images, each.factors)[0, 0, 0, 0].item()  # waits for the device
            yield each


class _Transformed(Dataset[Any]):
    def __init__(self, images: Chosen, transform: Callable[[bytes], Any]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images.read(index)), int(self.images.labels[index])


def by_torch(images: Chosen, transform: Callable[[bytes], Any], workers: int, seed: int) -> Stream:
    """Batches of torch's own DataLoader: `transform` of every image's bytes, shuffled."""
    dataset, generator = _Transformed(images, transform), torch.Generator().manual_seed(seed)
    batches: Any = iter(
        DataLoader(
            dataset,
            batch_size=MINI_BATCH,
            sampler=RandomSampler(dataset, num_samples=ENDLESS, generator=generator),
            num_workers=workers,
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


def rows_of(ways: Sequence[Way], workers: int) -> list[InputRow]:
    """A row a way; full distortion is set beside the reference's full ColorJitter."""
    named = {way.name: way for way in ways}
    rows = []
    for way in ways:
        full = way.name.endswith(FULL)
        beside = named[REFERENCE_FULL if full or way.name == REFERENCE_FULL else REFERENCE]
        note = f"{way.note}; ratio to the reference with full ColorJitter" if full else way.note
        median, ratio = way.median, way.speedup(beside)
        assert median is not None and ratio is not None
        rows.append(InputRow(way.name, workers, MINI_BATCH / median, ratio, note))
    return rows


def sentences(rows: Sequence[InputRow], default: int, step_rate: float | None) -> list[str]:
    """What the table means for training at `step_rate` images/s with `default` workers."""
    fewest = min((row.workers for row in rows), key=lambda workers: (workers == 0, workers))
    said = [
        f"With {in_words(fewest)}, {row.name} makes {row.images_per_second:,.0f} images/s, "
        f"{row.ratio_to_reference:.2f} times torchvision's recipe."
        for row in rows
        if row.workers == fewest and row.name in (LOADER, LOADER + FULL, LOADER + TO_INPUT + FULL)
    ]
    if step_rate is None:
        return [
            *said,
            "How many workers training needs was not computed: give "
            "benchmark.step_images_per_second=N; bn-inception benchmark step measures it.",
        ]
    rates = {row.workers: row.images_per_second for row in rows if row.name == LOADER + FULL}
    enough, most = [count for count, found in rates.items() if found >= step_rate], max(rates)
    if enough:
        needs = f"{in_words(min(enough))} ({rates[min(enough)]:,.0f} images/s measured)"
    else:
        each = rates[most] / max(1, most)
        needs = (
            f"about {-(-step_rate // each):.0f} workers like the {max(1, most)} measured, "
            f"{each:,.0f} images/s each (extrapolated); this machine has {cores()} cores"
        )
    workers, why = default, "the default here"
    if default not in rates:
        workers, why = most, f"the most measured; the default: {default}"
    found = rates[workers]
    waits = "it waits for training"
    if found < step_rate:
        waits = f"training waits for images, and runs at {found / step_rate:.0%} of its rate"
    return [
        *said,
        f"Training at {step_rate:,.0f} images/s needs {needs}.",
        f"With {in_words(workers)} ({why}) the loader makes {found:,.0f} images/s: {waits}.",
    ]
