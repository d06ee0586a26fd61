"""The shared memory (`/dev/shm`) that batches of worker processes need, checked at the start.

If it is full, the kernel kills the worker that writes (SIGBUS). This may happen hours into a run,
because an evaluation's batches need room beside those of training.
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


def require(workers: int, batch: int, processes: int = 1) -> None:
    """Refuse more workers in each process than `/dev/shm` has room for; `batch` is in bytes.

    A worker has at most `PREFETCHED_BATCHES` finished batches that have not been taken, and one
    more is being handed over or used by the main process. Systems without `/dev/shm` are not
    checked.
    """
    of_a_worker = processes * (PREFETCHED_BATCHES + 1) * batch
    need = workers * of_a_worker
    try:
        status = os.statvfs(FOLDER)
    except OSError:
        return
    free = status.f_bavail * status.f_frsize
    if need <= free or sys.platform != "linux":
        return
    fitting = free // of_a_worker
    shared = f" in each of {processes} processes" if processes > 1 else ""
    fewer = f"data.workers={fitting} fits, " if fitting else ""
    raise UserError(
        f"data.workers: {workers}{shared} need {-(-need // 2**20):,} MiB of shared memory, and "
        f"{free // 2**20:,} MiB are free in {FOLDER}; {fewer}data.workers=0 needs none, "
        f"and docker run --shm-size={-(-2 * need // 2**20)}m gives a container enough"
    )
