"""The order of training images, as a pure function of (seed, step).

One permutation, the same for every run, assigns images to shards. Each epoch reads the shards in a
new order, and permutes the images inside them anew, so that other examples share a mini-batch (BN
section 4.2.1: about 1 % of accuracy).
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from numpy.typing import NDArray

from bn_inception.errors import UserError, require_at_least

# Distinct tags separate streams with the same numbers.
_STORED, _SHARDS, _WITHIN, _IMAGE = 1, 2, 3, 4
_MASK = (1 << 64) - 1


@dataclass
class OrderConfig:
    """How training images are ordered."""

    within_shard_shuffling: bool = True  # permute images inside each shard, anew every epoch
    # images in a shard; with 1251, ImageNet's 1,281,167 fill 1024 shards, the number that
    # Google's public ImageNet scripts write, except for the last
    shard_size: int = 1251

    def __post_init__(self) -> None:
        require_at_least("order.shard_size", self.shard_size, 1)


def stored_order(images: int) -> NDArray[np.int64]:
    """The order in which shards hold the images, the same for every run; shape (images,)."""
    return _ranking(_raw(_STORED, 0, images, images))


def image_generator(seed: int, epoch: int, index: int) -> Generator:
    """The generator of one image's augmentation in one epoch; costs about 10 microseconds.

    Philox is counter-based: the key is the seed, and (epoch, index) are the high words of the
    counter, so that each image has its own stream, 2^128 blocks from any other.
    """
    return Generator(
        Philox(
            key=(seed & _MASK) | (_IMAGE << 64),
            counter=((epoch & _MASK) << 128) | ((index & _MASK) << 192),
        )
    )


class TrainingOrder:
    """Which images are in the batch of any step; see `OrderConfig`; seeds are 0 to 2^64 - 1.

    A batch may span the end of an epoch: every image is read exactly once an epoch, and all batches
    have the same size. Any step costs at most the permutation of its epoch, which is cached.
    """

    def __init__(
        self, images: int, batch: int, seed: int, within_shard_shuffling: bool, shard_size: int
    ) -> None:
        require_at_least("training images", images, 1)
        require_at_least("batch.images", batch, 1)
        if not 0 <= seed <= _MASK:
            raise UserError(f"run.seed: {seed} is not between 0 and 2^64 - 1")
        self.images, self.batch_size, self.seed = images, batch, seed
        self.within_shard_shuffling = within_shard_shuffling
        self.shard_size = min(shard_size, images)
        self._stored = stored_order(images)
        # a batch may span the end of an epoch
        self.epoch = functools.lru_cache(2)(self._epoch)

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epoch number and image index of every place in the batch of `step`, both (batch,)."""
        positions = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, offsets = np.divmod(positions, self.images)
        indices = np.empty_like(positions)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            indices[here] = self.epoch(epoch)[offsets[here]]
        return epochs, indices

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """Every image index once, in the order in which `epoch` reads them; shape (images,)."""
        stored = self._stored
        if self.within_shard_shuffling:
            # One random word for every stored place: a shard's permutation depends only on its own
            # words. Both sorts are stable, so that ties are resolved the same way everywhere.
            words = _raw(_WITHIN, self.seed, epoch, self.images)
            stored = stored[np.lexsort((words, np.arange(self.images) // self.shard_size))]
        shards = np.split(stored, range(self.shard_size, self.images, self.shard_size))
        ranks = _ranking(_raw(_SHARDS, self.seed, epoch, len(shards)))
        return np.concatenate([shards[shard] for shard in ranks.tolist()])


def _raw(tag: int, seed: int, epoch: int, count: int) -> NDArray[np.uint64]:
    # Fixed numbers of 32-bit words, because SeedSequence reads (seed, 0) and (seed,) alike.
    words = [tag] + [number >> shift & 0xFFFFFFFF for number in (seed, epoch) for shift in (0, 32)]
    key = SeedSequence(words).generate_state(2, np.uint64)
    raw: NDArray[np.uint64] = Philox(key=key).random_raw(count)
    return raw


def _ranking(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    # Sort a bit generator's raw words: numpy guarantees these streams, but not the algorithm of
    # Generator.permutation.
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)
