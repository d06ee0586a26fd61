"""The processes of one run, as torchrun starts them; a run of one process needs none of this."""

import ctypes
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from bn_inception.errors import AgreedError, UserError
from bn_inception.files import first_line

T = TypeVar("T")

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_ATTEMPT = "bn_inception/attempt"
_ROLL_CALL = timedelta(seconds=10)
"""How long those that have lost another process wait for each other, to name it."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(eq=False)
class World:
    """The processes that train one network together; by itself, a world of one.

    Its methods are meetings: all processes must call them, in the same order. In a world of one
    each is what it would be without it, at no cost.

    Attributes:
        rank: this process, from 0; the first one writes.
        size: processes.
        local_rank: this process among those of its machine, from 0.
        local_size: processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum `values` over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def highest(self, *values: int) -> tuple[int, ...]:
        """Each the highest of all processes; waits for all of them, but for no GPU."""
        if self.size == 1:
            return values
        shared = torch.tensor(values)  # on the CPU, hence over gloo
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return tuple(shared.tolist())

    def gathered(self, value: T) -> list[T]:
        """Every process's `value`, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def agreed(self, action: Callable[[], T]) -> T:
        """Do `action` on every process; a UserError of one is an AgreedError on all."""
        if self.size == 1:
            return action()
        result: T
        result, error = _tried(action)
        # First the one number: this is done at every step.
        if self.highest(error is not None)[0]:
            for rank, text in enumerate(self.gathered(error)):
                if text is not None:
                    raise AgreedError(text if rank == 0 else f"process {rank}: {text}")
        return result

    def from_first(self, action: Callable[[], T]) -> T:
        """Do `action` on the first process only; all have its result, or its error (as above)."""
        if self.size == 1:
            return action()
        outcome: list[Any] = [*_tried(action)] if self.first else [None, None]
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise AgreedError(outcome[1])
        result: T = outcome[0]
        return result

    def subgroup(self, size: int) -> dist.ProcessGroup | None:
        """The `size` neighbouring processes that this one belongs to; None if that is all.

        `size` divides the number of processes.
        """
        if size == self.size:
            return None
        groups = [
            dist.new_group(list(range(start, start + size))) for start in range(0, self.size, size)
        ]
        group = groups[self.rank // size]
        assert isinstance(group, dist.ProcessGroup)
        return group


def _tried(action: Callable[[], Any]) -> tuple[Any, str | None]:
    """The result of `action`, or None and what its UserError says."""
    try:
        return action(), None
    except UserError as error:
        return None, str(error)


ALONE = World()
"""Plain `python`: one process, which meets nobody."""


def world_from_environment() -> World:
    """Read the variables that torchrun sets; a world of one where there are none."""
    if "WORLD_SIZE" not in os.environ and "RANK" not in os.environ:
        return ALONE
    try:
        rank, size, local_rank, local_size = (int(os.environ[name]) for name in _VARIABLES)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"environment: RANK or WORLD_SIZE is set, but not all of {', '.join(_VARIABLES)} as "
            "numbers; start with torchrun, or unset them"
        ) from error
    return World(rank, size, local_rank, local_size)


@contextmanager
def joined(world: World, device: torch.device, timeout: float) -> Generator[None, None, None]:
    """Connect the processes of `world` while entered; they wait for each other `timeout` seconds.

    CPU tensors travel over gloo, CUDA tensors over NCCL. Where another process has died, hangs or
    cannot be reached, the exchange fails, and a UserError names those that torch can tell.
    """
    if world.size == 1:
        yield
        return
    here = f"process {world.rank} of {world.size}"
    _end_with_torchrun()
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=_fresh(store, world, timeout),
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=timeout),
            device_id=device if device.type == "cuda" else None,
        )
        roll_call = dist.new_group(backend="gloo", timeout=_ROLL_CALL)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"{here}: cannot reach the others ({first_line(error)}); check the rendezvous address "
            "and port of torchrun"
        ) from error
    try:
        yield
    except RuntimeError as error:
        # gloo's errors are plain RuntimeErrors.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            f"{here}: lost the others ({_lost(roll_call) or first_line(error)}); one of them died "
            "or hangs, or the network failed; continue with run.resume=must"
        ) from error
    dist.destroy_process_group()


def _lost(roll_call: Any) -> str:
    """Which processes do not come when all are called, in torch's words."""
    try:
        dist.monitored_barrier(roll_call, timeout=_ROLL_CALL, wait_all_ranks=True)
    except RuntimeError as error:
        return first_line(error).partition("  Original exception")[0]
    return ""


def _end_with_torchrun() -> None:
    """Have the kernel send SIGTERM once torchrun has gone: prctl(2).

    A torchrun that is killed cannot end its processes, which would train on and keep the run
    locked. On SIGTERM they save and end. One that has gone before this has taken with it the store
    at which the processes meet.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _fresh(store: Any, world: World, timeout: float) -> Any:
    """The part of `store` that belongs to this attempt alone.

    torchrun keeps one store over its restarts: those that come again would look for each other at
    the addresses of the attempt before. Its count of restarts is not the same on all machines
    (pytorch #108158). So the first process names the attempt, and takes note of the others by names
    of their own: one that meets the name of an earlier attempt is not on its list.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + timeout
    if world.first:
        store.set(_ATTEMPT, own)
        come = [store.get(f"{own}/{rank}").decode() for rank in range(1, world.size)]
        store.set(f"{own}/come", " ".join(come))
        return PrefixStore(own, store)
    while time.monotonic() < until:
        attempt = store.get(_ATTEMPT).decode()
        store.set(f"{attempt}/{world.rank}", own)
        come_key = f"{attempt}/come"
        if store.check([come_key]) and own in store.get(come_key).decode().split():
            return PrefixStore(attempt, store)
        time.sleep(0.05)
    raise RuntimeError(f"process 0 has not come within {timeout:g} s")
