"""The input pipeline beside its peers: images a second, by number of worker processes.

All ways read the same images at the same size and batch. Their turns follow each other in rounds,
so that a machine that is slow for a while is slow for all of them, and every ratio is taken within
a round. Each package's ways have a process of their own, which is idle between their turns.
"""

import io
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bn_inception.benchmark.aside import Aside, Failed, NotInstalled
from bn_inception.benchmark.peers import all_peers
from bn_inception.benchmark.peers.ours import (
    COUNTED_FULL,
    DECODING,
    LOADER,
    LOADER_FULL,
    READING,
    device_name,
)
from bn_inception.benchmark.peers.reference import REFERENCE, REFERENCE_FULL
from bn_inception.benchmark.rows import InputRow, in_words
from bn_inception.benchmark.ways import Images, Peer, Way, rate
from bn_inception.data import (
    Backend,
    DataConfig,
    ImageSource,
    OnError,
    UnreadableImage,
    default_workers,
    open_sources,
    refuse_unread,
    stored_order,
)
from bn_inception.data.fingerprint import content_fingerprint
from bn_inception.data.loader import read_image
from bn_inception.data.parallel import cores
from bn_inception.errors import UserError
from bn_inception.paper.results import MINI_BATCH
from bn_inception.record import describe
from bn_inception.training.settings import Device

_SHARDS = 8
"""webdataset gives every worker whole shards: at least as many as there are workers."""

Progress = Callable[[str, int, int], None]
"""Told what is done, how many pieces of it, and of how many."""


@dataclass
class InputBenchmark:
    """What is measured, and how often.

    Attributes:
        images: training images that every way reads, the same ones, and delivers in a turn; of a
            smaller set all, several times.
        rounds: turns of every way; the median counts.
        workers: numbers of worker processes; None is 0, 1, 2, 4, ... and the cores.
        image_size: S in pixels of what is delivered.
        device: where our distortion is computed.
        step_images_per_second: rate of training without input, to say which side will wait.
    """

    images: int = 1024
    rounds: int = 5
    workers: list[int] | None = None
    image_size: int = 224
    device: Device = Device.auto
    step_images_per_second: float | None = None

    def __post_init__(self) -> None:
        for name in ("images", "rounds", "image_size"):
            if getattr(self, name) < 1:
                raise UserError(f"benchmark.{name}: {getattr(self, name)} is not 1 or more")
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
        most = cores()
        powers = [2**power for power in range(most.bit_length()) if 2**power < most]
        return [0, *powers, most]


@dataclass
class InputResult:
    """What was measured.

    Attributes:
        rows: of the table, way by way.
        sentences: what it means for training.
        about: command, machine, versions and settings, JSON-able.
    """

    rows: list[InputRow]
    sentences: list[str]
    about: dict[str, Any]


def benchmark_input(
    data: DataConfig,
    config: InputBenchmark,
    say: Callable[[str], None],
    progress: Progress,
) -> InputResult:
    """Measure every way on the data set's training images.

    Copies of the images are kept in a temporary folder meanwhile, for peers that read folders or
    tar files only.

    Args:
        data: the data set; `data.workers` must be None, since `config.workers` says it, and
            `data.backend` the default, since both are measured.
        config: what to measure.
        say: told what is left out.
        progress: told how far it is.

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
    counts = config.counts()
    sources = open_sources(data)
    for warning in sources.warnings:
        say(f"warning: {warning}")
    with ExitStack() as stack:
        # torch must not touch CUDA in this process: those that are forked from it could not.
        ours = stack.enter_context(Aside())
        name = ours.ask(device_name, config.device)
        peers = all_peers(config.device, name)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bn-inception-benchmark-"))
        images = copied(sources.train, data.on_error, config, max(counts), Path(folder), progress)
        for skipped in images.skipped:
            say(f"left out: {skipped}")
        sides = [ours, *(stack.enter_context(Aside()) for _ in peers[1:])]
        taken = _measured(peers, sides, images.images, counts, config.rounds, say, progress)
    ways = [way for peer in peers for way in peer.ways]
    rows = rows_of(ways, counts, taken)
    gpus = [] if name == "CPU" else [name]
    about = describe(images.images.source.fingerprint(), gpus=gpus)
    about["versions"] |= {peer.packages[0]: _version(peer) for peer in peers if peer.packages}
    about["settings"] = {
        "images": len(images.images.source),
        "images_a_turn": images.images.timed,
        "rounds": config.rounds,
        "batch": MINI_BATCH,
        "image_size": config.image_size,
        "data": data.kind.value,
    }
    said = sentences(
        rows,
        frozenset(way.name for way in ways if way.distorted),
        machine_cores=cores(),
        default=default_workers(),
        step_rate=config.step_images_per_second,
    )
    return InputResult(rows, said, about | {"sentences": said})


class Chosen:
    """Some images of a source, as a source: what every way reads.

    Args:
        source: all images.
        indices: of the chosen ones in `source`, shape (images,).
        fingerprint: of the chosen ones.
    """

    def __init__(self, source: ImageSource, indices: NDArray[np.int64], fingerprint: str) -> None:
        self._source = source
        self._indices = indices
        self._fingerprint = fingerprint
        self._labels = source.labels[indices]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the position is the label."""
        return self._source.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of every image, shape (images,)."""
        return self._labels

    @property
    def sizes(self) -> NDArray[np.integer[Any]]:
        """Bytes of every encoded image, shape (images,)."""
        return self._source.sizes[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError where they cannot be had."""
        return self._source.read(int(self._indices[index]))

    def name(self, index: int) -> str:
        """What a person needs to find this image."""
        return self._source.name(int(self._indices[index]))

    def identity(self, index: int) -> str:
        """The image's path below the split."""
        return self._source.identity(int(self._indices[index]))

    def fingerprint(self) -> str:
        """See `content_fingerprint`."""
        return self._fingerprint


@dataclass
class Copied:
    """The images to measure with, and what was left out because it cannot be read."""

    images: Images
    skipped: list[str] = field(default_factory=list)


def copied(
    source: ImageSource,
    on_error: OnError,
    config: InputBenchmark,
    workers: int,
    folder: Path,
    progress: Progress,
) -> Copied:
    """Choose images, evenly over the data set, and copy them into class folders and tar files.

    Each is decoded once, so that no way meets one that cannot be read; and its file is in the
    page cache afterwards, for all ways alike.

    Raises:
        UserError: one cannot be read and `on_error` is fail; none can be read; a full disk.
    """
    shards = max(_SHARDS, workers)
    paths = [folder / f"shard-{number:04d}.tar" for number in range(shards)]
    indices: list[int] = []
    skipped: list[str] = []
    rows: list[tuple[bytes, int, int]] = []
    wanted = min(config.images, len(source))
    try:
        with ExitStack() as stack:
            tars = [stack.enter_context(tarfile.open(path, "w")) for path in paths]
            for index in stored_order(len(source)).tolist():
                progress("copying images", len(indices), wanted)
                try:
                    read_image(source, index, Backend.pillow)  # which decodes at once
                except UnreadableImage as error:
                    if on_error is OnError.fail:
                        raise UserError(
                            f"{error.name} cannot be read: {error.reason}; repair or remove it, "
                            "or set data.on_error=skip"
                        ) from error
                    skipped.append(str(error))
                    continue
                encoded, label = source.read(index), int(source.labels[index])
                number = len(indices)
                place = folder / "images" / f"{label:06d}" / f"{number:08d}.jpg"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(encoded)
                _add(tars[number % shards], f"{number:08d}.jpg", encoded)
                _add(tars[number % shards], f"{number:08d}.cls", str(label).encode())
                indices.append(index)
                rows.append((source.identity(index).encode(), len(encoded), label))
                if len(indices) == wanted:
                    break
    except OSError as error:
        raise UserError(
            f"{folder}: the images cannot be copied there ({error.strerror}); make room, set "
            "TMPDIR to another folder, or choose fewer with benchmark.images=N"
        ) from error
    if not indices:
        raise UserError(f"data.root: none of {len(source):,} training images can be read")
    progress("copying images", len(indices), len(indices))
    chosen = Chosen(source, np.array(indices), content_fingerprint(source.classes, rows))
    return Copied(
        Images(
            chosen,
            str(folder / "images"),
            # An empty one would be an error to webdataset.
            tuple(str(path) for path in paths[: len(indices)]),
            config.image_size,
            MINI_BATCH,
            config.images,
        ),
        skipped,
    )


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@dataclass
class Taken:
    """What was measured.

    Attributes:
        rates: images a second by (name of the way, workers), one a round; None where it failed.
        failures: why, by the same.
    """

    rates: dict[tuple[str, int], list[float | None]] = field(default_factory=dict)
    failures: dict[tuple[str, int], str] = field(default_factory=dict)


def turns(
    ways: Sequence[Way], counts: Sequence[int], rounds: int
) -> Iterator[tuple[int, int, Way]]:
    """The order of measuring: (round, workers, way).

    Every round holds every way with every number of workers once; the ways with one number follow
    each other, so that a ratio's two figures are taken close together, and every other round goes
    backwards, so that none of them is always the first after a pause.
    """
    for number in range(rounds):
        one_round = [(number, workers, way) for workers in counts for way in ways]
        yield from one_round if number % 2 == 0 else reversed(one_round)


def _measured(
    peers: Sequence[Peer],
    sides: Sequence[Aside],
    images: Images,
    counts: Sequence[int],
    rounds: int,
    say: Callable[[str], None],
    progress: Progress,
) -> Taken:
    place = {
        way.name: (side, peer) for side, peer in zip(sides, peers, strict=True) for way in peer.ways
    }
    taken = Taken()
    missing: dict[tuple[str, ...], str] = {}
    order = list(turns([way for peer in peers for way in peer.ways], counts, rounds))
    for done, (number, workers, way) in enumerate(order):
        progress("measuring", done, len(order))
        side, peer = place[way.name]
        key = way.name, workers
        found: float | None = None
        if key not in taken.failures and peer.packages not in missing:
            try:
                found = side.ask(rate, way, images, workers, number)
            except NotInstalled as error:
                missing[peer.packages] = _not_installed(peer, error)
                say(missing[peer.packages])
            except Failed as error:
                taken.failures[key] = f"failed: {error}"
                say(f"{way.name}, {workers} workers: {taken.failures[key]}")
        taken.rates.setdefault(key, [None] * rounds)[number] = found
        if peer.packages in missing:
            taken.failures[key] = missing[peer.packages]
    progress("measuring", len(order), len(order))
    return taken


def _not_installed(peer: Peer, error: NotInstalled) -> str:
    packages = " or ".join(peer.packages)
    # Installed, but without something that it needs.
    reason = f" ({error})" if _version(peer) else ""
    return f"not installed: pip install {packages}{reason}"


def _version(peer: Peer) -> str | None:
    for package in peer.packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def rows_of(ways: Sequence[Way], counts: Sequence[int], taken: Taken) -> list[InputRow]:
    """The table: medians of the rounds, and medians of the ratios, each within its round.

    A ratio is to the reference with as many workers; to the one with full ColorJitter, for a way
    that distorts colours in full.
    """
    rows = []
    for way in ways:
        reference = REFERENCE_FULL if way.distorted else REFERENCE
        for workers in counts:
            own = taken.rates[way.name, workers]
            pairs = zip(own, taken.rates[reference, workers], strict=True)
            rows.append(
                InputRow(
                    way.name,
                    workers,
                    _median(own),
                    _median([a / b if a and b else None for a, b in pairs]),
                    taken.failures.get((way.name, workers), _note(way)),
                )
            )
    return rows


def _note(way: Way) -> str:
    if not way.distorted or way.name == REFERENCE_FULL:
        return way.note
    return "; ".join(filter(None, [way.note, "ratio to the reference with full ColorJitter"]))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def sentences(
    rows: Sequence[InputRow],
    distorted: frozenset[str],
    *,
    machine_cores: int,
    default: int,
    step_rate: float | None,
) -> list[str]:
    """What the table means for training.

    Args:
        rows: of the table.
        distorted: names of the ways that distort colours in full.
        machine_cores: cores of this machine.
        default: number of workers where data.workers is not given.
        step_rate: images a second of training without input; None if not known.
    """
    rates = {(row.name, row.workers): row.images_per_second for row in rows}
    plain = [row for row in rows if row.name not in distorted]
    full = [row for row in rows if row.name in distorted]
    said = _beside_peers(plain, LOADER, REFERENCE)
    for name in (LOADER_FULL, COUNTED_FULL):
        said += _beside_peers(full, name, REFERENCE_FULL)
    decoding, loading = (
        {workers: found for (way, workers), found in rates.items() if way == name and found}
        for name in (DECODING, LOADER)
    )
    for workers in sorted(decoding.keys() & loading.keys())[-1:]:
        said.append(
            f"With {in_words(workers)}, decoding whole images with Pillow and nothing else makes "
            f"{decoding[workers]:,.0f} images/s; {LOADER} makes {loading[workers]:,.0f}."
        )
    if step_rate is None:
        said.append(
            "How many workers training needs was not computed: give "
            "benchmark.step_images_per_second=N; bn-inception benchmark step measures it."
        )
        return said
    loading = {
        workers: found for (way, workers), found in rates.items() if way == LOADER_FULL and found
    }
    return said + _who_waits(loading, machine_cores, default, step_rate)


def _beside_peers(rows: Sequence[InputRow], name: str, reference: str) -> list[str]:
    """One sentence for the fewest worker processes: the ratio, and the fastest peer."""
    own = [row for row in rows if row.name == name and row.ratio_to_reference]
    if not own:
        return []
    mine = min(own, key=lambda row: (row.workers == 0, row.workers))
    assert mine.images_per_second is not None
    line = (
        f"With {in_words(mine.workers)}, {name} makes {mine.images_per_second:,.0f} images/s, "
        f"{mine.ratio_to_reference:.2f} times the {reference}"
    )
    peers = {
        row.name: row.images_per_second
        for row in rows
        if row.workers == mine.workers
        and row.images_per_second
        and row.name not in (READING, DECODING, reference)
        and not row.name.startswith(LOADER)
    }
    if peers:
        best = max(peers, key=lambda peer: peers[peer])
        line += (
            f" and {mine.images_per_second / peers[best]:.2f} times {best}, the fastest of "
            f"{len(peers)} other rows"
        )
    return [line + "."]


def _who_waits(
    loading: Mapping[int, float], machine_cores: int, default: int, step_rate: float
) -> list[str]:
    if not loading:
        return ["The loader could not be measured, so that nothing can be said about training."]
    said = []
    enough = [workers for workers, found in sorted(loading.items()) if found >= step_rate]
    most = max(loading)
    if enough:
        said.append(
            f"Training at {step_rate:,.0f} images/s needs {in_words(enough[0])} "
            f"({loading[enough[0]]:,.0f} images/s measured)."
        )
    else:
        each = loading[most] / max(1, most)
        said.append(
            f"Training at {step_rate:,.0f} images/s needs about {-(-step_rate // each):.0f} "
            f"workers like the {max(1, most)} measured, {each:,.0f} images/s each (extrapolated: "
            f"not measured); this machine has {machine_cores} cores."
        )
    workers = default if default in loading else most
    why = "the default here" if workers == default else f"the most measured; the default: {default}"
    found = loading[workers]
    if found >= step_rate:
        said.append(
            f"With {in_words(workers)} ({why}) the loader makes {found:,.0f} images/s: it waits "
            "for training."
        )
    else:
        said.append(
            f"With {in_words(workers)} ({why}) the loader makes {found:,.0f} images/s: training "
            f"waits for images, and runs at {found / step_rate:.0%} of its rate."
        )
    return said
