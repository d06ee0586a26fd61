"""The shared memory (`/dev/shm`) that batches of worker processes need, checked at the start.

Workers hand batches over in shared memory. If it is full, the kernel kills the worker that writes
(SIGBUS). This may happen hours into a run, because an evaluation's batches need room beside
those of training.
"""

import os
import sys

from bn_inception.errors import UserError

PREFETCHED_BATCHES = 4
"""Batches requested ahead from each worker; this covers the pause for an epoch's order."""

FOLDER = "/dev/shm"
"""Linux's shared memory. Docker gives a container 64 MB of it by default."""

# An image's factors (at most five float32), label and flag.
_BESIDE_PIXELS = 32
# Each of a batch's three or four tensors ends in a partly used page.
_PAGES = 4 * 4096


def batch_bytes(images: int, image_size: int) -> int:
    """Bytes of a batch of `images`, uint8 3 x `image_size` x `image_size`, labels and factors."""
    return images * (3 * image_size**2 + _BESIDE_PIXELS) + _PAGES


def needed(workers: int, batch: int, processes: int = 1) -> int:
    """Bytes of shared memory that batches can take at once.

    A worker has at most `PREFETCHED_BATCHES` finished batches that have not been taken, and one
    more is being handed over or used by the main process.

    Args:
        workers: of one main process.
        batch: bytes of a batch; the sum over kinds, if two kinds are read at a time.
        processes: main processes on this machine, each with as many workers.
    """
    return processes * workers * (PREFETCHED_BATCHES + 1) * batch


def require(workers: int, batch: int, processes: int = 1) -> None:
    """Refuse settings for which `/dev/shm` has too little room; arguments as for `needed`.

    Without workers nothing is needed. Systems without `/dev/shm` are not checked.

    Raises:
        UserError: with the needed size, the free size and the remedies.
    """
    if workers == 0 or sys.platform != "linux":
        return
    try:
        status = os.statvfs(FOLDER)
    except OSError:
        return
    free, need = status.f_bavail * status.f_frsize, needed(workers, batch, processes)
    if need <= free:
        return
    fitting = free // needed(1, batch, processes)
    shared = f" in each of {processes} processes" if processes > 1 else ""
    fewer = f"data.workers={fitting} fits, " if fitting else ""
    raise UserError(
        f"data.workers: {workers}{shared} need {_megabytes(need)} of shared memory, and "
        f"{_megabytes(free, up=False)} are free in {FOLDER}; {fewer}data.workers=0 needs none, "
        f"and docker run --shm-size={-(-2 * need // 2**20)}m gives a container enough"
    )


def _megabytes(size: int, up: bool = True) -> str:
    return f"{-(-size // 2**20) if up else size // 2**20:,} MiB"
