"""How one update's images lie on the processes, and which of them BN normalizes together."""

from dataclasses import dataclass

from bn_inception.errors import UserError
from bn_inception.paper.results import MINI_BATCH
from bn_inception.training.settings import BatchConfig


@dataclass(frozen=True)
class LocalBatch:
    """One process's part of an update's images.

    Attributes:
        images: that a process holds.
        group: images over which BN takes its statistics; None without BN.
        groups: whole groups that a process holds, at least 1.
        sharers: processes that hold one group together; 1 unless a process holds less than one.
    """

    images: int
    group: int | None
    groups: int
    sharers: int

    def places(self, rank: int) -> slice:
        """Where in the update's batch the images of process `rank` lie."""
        return slice(rank * self.images, (rank + 1) * self.images)


def local_batch(batch: BatchConfig, processes: int, *, normalized: bool) -> LocalBatch:
    """Divide one update's images among `processes`.

    A network without BN (`normalized` is false) has no groups to meet.
    """
    total, group = batch.images, batch.mini_batch
    images, rest = divmod(total, processes)
    if rest:
        raise UserError(
            f"batch.images: {total} images cannot be divided among {processes} processes; "
            "choose a multiple of their number"
        )
    if not normalized:
        return LocalBatch(images, None, 1, 1)
    if total % group:
        raise UserError(
            f"batch.norm_group: {total} images are no whole number of groups of {group}; choose "
            "batch.images as a multiple of it, or another batch.norm_group"
        )
    if not batch.synchronized and images < group:
        if images < 2:
            raise UserError(
                f"batch.synchronized: false leaves groups of {images} image ({total} on "
                f"{processes} processes), and statistics need 2; use fewer processes, or true"
            )
        group = images
    if images % group == 0:
        return LocalBatch(images, group, images // group, 1)
    if group % images:
        raise UserError(
            f"batch.norm_group: a process holds {images} images ({total} on {processes} "
            f"processes), neither a multiple nor a divisor of the group of {group}; choose another "
            "number of processes, or another batch.norm_group"
        )
    return LocalBatch(images, group, 1, group // images)


def statement(batch: BatchConfig, local: LocalBatch, processes: int, *, rate: float) -> str | None:
    """Say in one line what differs from one process with the paper's one group; None if nothing.

    `rate` is `optimizer.learning_rate`, which holds `batch.rate_factor` already.
    """
    if processes == 1 and local.groups == 1 and batch.rate_factor == 1:
        return None
    parts = [f"{batch.images} images an update"]
    if processes > 1:
        parts[0] += f" on {processes} processes, {local.images} each"
    if local.group is not None:
        as_meant = local.group == batch.mini_batch
        short = "" if as_meant else f" (not {batch.mini_batch}: batch.synchronized=false)"
        where = f", synchronized over {local.sharers} processes" if local.sharers > 1 else ""
        parts.append(f"BN statistics over {local.group}{short}{where}")
    if batch.rate_factor != 1:
        parts.append(f"rate {rate:g} (batch.rate_factor {batch.rate_factor:g})")
    parts.append(f"one step is {batch.images / MINI_BATCH:g} of the paper's {MINI_BATCH}")
    return "; ".join(parts)
