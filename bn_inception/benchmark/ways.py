"""A way to bring images in, and how its speed is taken."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from bn_inception.data import ImageSource


@dataclass(frozen=True)
class Images:
    """The images that all ways read, the same ones, each wherever it can read them.

    Attributes:
        source: where this package reads them: the user's own data set.
        folder: copies as class folders, for torchvision's ImageFolder and its like.
        shards: paths of copies in tar files, in the WebDataset convention.
        size: S in pixels of what a way delivers.
        batch: images in a batch.
        timed: images that are timed, at least.
    """

    source: ImageSource
    folder: str
    shards: tuple[str, ...]
    size: int
    batch: int
    timed: int


Stream = Generator[int, None, None]
"""Ready batches, for ever, each as its number of images."""


@dataclass(frozen=True)
class Way:
    """One way to bring images in.

    Attributes:
        name: in the table.
        start: makes the stream, from the images, the number of worker processes (0: none) and a
            seed. It imports what only it needs; ImportError where that is not installed.
        distorted: whether colours are distorted in full, so that it is compared with the
            reference that does so too.
        note: what the figure leaves out or holds beyond the rest.
    """

    name: str
    start: Callable[[Images, int, int], Stream]
    distorted: bool = False
    note: str = ""


@dataclass(frozen=True)
class Peer:
    """Ways that share a process and a package.

    Attributes:
        ways: in the order of the table.
        packages: any of these distributions; the first is what to install. Empty: always there.
    """

    ways: tuple[Way, ...]
    packages: tuple[str, ...] = ()


def timed_batches(images: Images, workers: int) -> int:
    """Batches between the two readings of the clock: a whole number from every worker."""
    lead = max(1, workers)
    return -(-images.timed // (images.batch * lead)) * lead


def rate(way: Way, images: Images, workers: int, seed: int) -> float:
    """Images a second of one way, in the steady state.

    The clock is read when as many batches as there are workers have come, so that their start is
    not counted, and again a whole number of batches from every worker later. The stream goes on
    beyond that: the end, where some workers are idle already, is not counted either.
    """
    lead = max(1, workers)
    with closing(way.start(images, workers, seed)) as stream:
        for _ in range(lead):
            next(stream)
        started = time.perf_counter()
        count = sum(next(stream) for _ in range(timed_batches(images, workers)))
        return count / (time.perf_counter() - started)


def from_loader(loader: Any) -> Stream:
    """The stream of a torch DataLoader whose batches are (images, labels)."""
    batches = iter(loader)
    try:
        for _, labels in batches:
            yield len(labels)
    finally:
        if loader.num_workers:
            batches._shutdown_workers()  # now, not when the iterator is collected
