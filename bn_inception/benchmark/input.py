"""The input pipeline beside torchvision's recipe: images a second, by number of worker processes.

All ways read the same images of the user's own data set, at the same size and batch.
"""

import copy
import io
import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from bn_inception.benchmark.reference import FULL_JITTER, train_transform
from bn_inception.benchmark.rows import in_words, refuse_below
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
from bn_inception.record import describe
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
        counts = {name: getattr(self, name) for name in ("images", "rounds", "image_size")}
        refuse_below(1, **{f"benchmark.{name}": count for name, count in counts.items()})
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


class Chosen(Dataset[Any]):
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
                    raise UserError(
                        f"{error.name} cannot be read: {error.reason}; repair or remove it, "
                        "or set data.on_error=skip"
                    ) from error
                say(f"left out: {error}")
                continue
            self._indices.append(index)
            if len(self) == wanted:
                break
        if not self._indices:
            raise UserError(f"data.root: none of {len(source):,} training images can be read")
        self.labels = source.labels[self._indices]
        self.transform: Callable[[bytes], Any] = bytes

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        return self._source.read(self._indices[index])

    def name(self, index: int) -> str:
        """The image's path."""
        return self._source.name(self._indices[index])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.read(index)), int(self.labels[index])


def benchmark_input(
    data: DataConfig, config: InputBenchmark, say: Callable[[str], None]
) -> tuple[list[InputRow], list[str], dict[str, Any]]:
    """Measure every way on the data set's training images.

    Returns:
        Rows, what they mean for training, and what they were measured on, JSON-able.

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
    gpus = [] if device.type == "cpu" else [torch.cuda.get_device_name(device)]
    about = describe(sources.train.fingerprint(), gpus=gpus)
    about["settings"] = {"images": len(images), "images_a_turn": config.images,
                         "rounds": config.rounds, "batch": MINI_BATCH,
                         "image_size": config.image_size, "data": data.kind.value}  # fmt: skip
    about["sentences"] = sentences(rows, default_workers(), config.step_images_per_second)
    return rows, about["sentences"], about


def ways_of(images: Chosen, size: int, workers: int, device: torch.device) -> list[Way]:
    """All ways with so many workers, in the order of the table; a unit is a batch of 32."""
    seeds = itertools.count()

    def ours(
        photometric: Photometric,
        on: torch.device | None = None,
        backend: Backend = Backend.fast,
    ) -> Callable[[], Stream]:
        how: dict[str, Any] = {"image_size": size, "workers": workers, "backend": backend}
        how["on_error"] = OnError.fail
        return lambda: loaded(images, photometric, on, seed=next(seeds), **how)

    def torchs(transform: Callable[[bytes], Any]) -> Callable[[], Stream]:
        return lambda: by_torch(images, transform, workers, next(seeds))

    none, full = Photometric.none, Photometric.full
    plain, jittered = train_transform(size), train_transform(size, FULL_JITTER)
    counted = f"the device's part too, in the main process on {device.type}"
    table: dict[str, tuple[Callable[[], Stream], str]] = {
        "reading alone": (torchs(len), "bytes of the files, not decoded"),
        "decoding alone (Pillow)": (torchs(lambda data: _opened(data).width), "no crop or resize"),
        LOADER: (ours(none), "uint8; normalization is the device's part"),
        f"{LOADER}, data.backend=pillow": (ours(none, backend=Backend.pillow), "the same"),
        LOADER + TO_INPUT: (ours(none, device), counted),
        LOADER + FULL: (ours(full), "uint8, factors drawn; distortion is the device's part"),
        LOADER + TO_INPUT + FULL: (ours(full, device), counted),
        REFERENCE: (torchs(lambda data: plain(_opened(data))), ""),
        REFERENCE_FULL: (torchs(lambda data: jittered(_opened(data))), ""),
    }
    # The clock starts when every worker has delivered a batch.
    return [Way(name, start, max(1, workers), note) for name, (start, note) in table.items()]


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


def by_torch(images: Chosen, transform: Callable[[bytes], Any], workers: int, seed: int) -> Stream:
    """Batches of torch's own DataLoader: `transform` of every image's bytes, shuffled."""
    dataset, generator = copy.copy(images), torch.Generator().manual_seed(seed)
    dataset.transform = transform
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
        more = "give benchmark.step_images_per_second=N; bn-inception benchmark step measures it"
        return [*said, f"How many workers training needs was not computed: {more}."]
    rates = {row.workers: row.images_per_second for row in rows if row.name == LOADER + FULL}
    enough = [workers for workers, found in sorted(rates.items()) if found >= step_rate]
    most = max(rates)
    each = rates[most] / max(1, most)
    needs = (
        f"{in_words(enough[0])} ({rates[enough[0]]:,.0f} images/s measured)"
        if enough
        else f"about {-(-step_rate // each):.0f} workers like the {max(1, most)} measured, "
        f"{each:,.0f} images/s each (extrapolated); this machine has {cores()} cores"
    )
    workers = default if default in rates else most
    found = rates[workers]
    why = "the default here" if workers == default else f"the most measured; the default: {default}"
    waits = (
        "it waits for training"
        if found >= step_rate
        else f"training waits for images, and runs at {found / step_rate:.0%} of its rate"
    )
    return [
        *said,
        f"Training at {step_rate:,.0f} images/s needs {needs}.",
        f"With {in_words(workers)} ({why}) the loader makes {found:,.0f} images/s: {waits}.",
    ]
