"""The processes of one run, as torchrun starts them; a run of one process needs none of this."""

import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from bn_inception.errors import AgreedError, UserError

T = TypeVar("T")

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_FAILURE = "bn_inception/failure"
_WATCH_SECONDS = 1.0
"""How often a process asks whether another one has failed."""
_GRACE_SECONDS = 5.0
"""What a process that waits for a failed one is given to end by itself."""


@dataclass(frozen=True)
class World:
    """The processes that train one network together; by itself, a world of one.

    Every method but `places` is a meeting: all processes must call it, in the same order. In a
    world of one each is what it would be without it, at no cost.

    Attributes:
        rank: this process, from 0.
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

    def highest(self, value: int) -> int:
        """The highest `value` of all processes; waits for all of them, but for no GPU."""
        if self.size == 1:
            return value
        shared = torch.tensor(value)  # on the CPU, hence over gloo
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return int(shared)

    def gathered(self, value: T) -> list[T]:
        """Every process's `value`, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def agreed(self, action: Callable[[], T]) -> T:
        """Do `action` on every process; where it fails on one, it fails on all.

        Raises:
            AgreedError: the UserError of the first process that had one.
        """
        if self.size == 1:
            return action()
        result: T
        error: str | None = None
        try:
            result = action()
        except UserError as raised:
            error = str(raised)
        for rank, text in enumerate(self.gathered(error)):
            if text is not None:
                raise AgreedError(text if rank == 0 else f"process {rank}: {text}")
        return result

    def from_first(self, action: Callable[[], T]) -> T:
        """Do `action` on the first process only; every process has its result.

        Raises:
            AgreedError: on every process, the UserError of the first.
        """
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = action()
            except UserError as error:
                outcome[1] = str(error)
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


ALONE = World()
"""Plain `python`: one process, which meets nobody."""


def world_from_environment() -> World:
    """Read the variables that torchrun sets; a world of one where there are none.

    Raises:
        UserError: some are missing or are no numbers.
    """
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
    """Connect the processes of `world` while entered; a world of one has none to connect.

    CPU tensors travel over gloo, CUDA tensors over NCCL. A process that leaves by an exception
    tells the others, which end within seconds, wherever they are.

    Args:
        world: of the environment.
        device: on which the network lies.
        timeout: seconds a process waits in a meeting for the others.

    Raises:
        UserError: the processes do not find each other, or one of them has failed.
    """
    if world.size == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        dist.init_process_group(
            backend,
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=timeout),
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"process {world.rank} of {world.size}: cannot reach the others "
            f"({_first_line(error)}); check the rendezvous address and port of torchrun"
        ) from error
    # A connection of its own: a process that waits in the other one must still hear of a failure.
    watch = _Watch(world, store.clone())
    watch.start()
    try:
        yield
    except AgreedError:
        raise
    except Exception as error:
        text = _first_line(error)
        if isinstance(error, RuntimeError) and _is_exchange(error):
            raise UserError(
                watch.heard(_GRACE_SECONDS)
                or f"process {world.rank} of {world.size}: lost the others ({text}); one of them "
                "died, or the network did; continue with run.resume=true"
            ) from error
        watch.tell(f"process {world.rank} of {world.size}: {text}")
        raise
    finally:
        watch.stop()
    dist.destroy_process_group()


class _Watch:
    """Ends this process when another one has failed, also out of a wait that cannot end."""

    def __init__(self, world: World, store: Any) -> None:
        self._world = world
        self._store = store
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()

    def tell(self, text: str) -> None:
        """Let the others know why this process ends; the first to tell is heard."""
        self._done.set()
        try:
            with self._lock:
                self._store.compare_set(_FAILURE, "", text)
        except RuntimeError:
            pass  # the store has gone, and with it those who would listen

    def heard(self, seconds: float) -> str | None:
        """What a failed process said, as one line; None if nothing comes within `seconds`."""
        until = time.monotonic() + seconds
        while True:
            try:
                with self._lock:
                    if self._store.check([_FAILURE]):
                        return str(self._store.get(_FAILURE).decode())
            except RuntimeError:
                return None
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)

    def _run(self) -> None:
        while not self._done.wait(_WATCH_SECONDS):
            said = self.heard(0)
            if said is None:
                continue
            if not self._done.wait(_GRACE_SECONDS):
                rank, size = self._world.rank, self._world.size
                print(
                    f"bn-inception: process {rank} of {size} ends, because of {said}",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(2)


def _is_exchange(error: RuntimeError) -> bool:
    # gloo's errors are plain RuntimeErrors.
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
