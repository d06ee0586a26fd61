"""The processes of one run, as torchrun starts them; a run of one process needs none of this."""

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from bn_inception.errors import AgreedError, UserError

T = TypeVar("T")

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_ATTEMPT = "bn_inception/attempt"
_FAILURE, _SIGN_OF_LIFE = "bn_inception/failure", "bn_inception/alive"
_WATCH_SECONDS = 1.0
"""How often a process asks whether another one has failed, and gives a sign of life."""
_SILENT_SECONDS = 3.0
"""A process without a sign of life for so long does not run: stopped, killed, or cut off."""
_GRACE_SECONDS = 6.0
"""What a process that waits for a failed one is given to end by itself; more than the one above."""


class Marks:
    """Counts the places that a process has come to: meetings, and batches asked for and had."""

    def __init__(self) -> None:
        self.count = 0


@dataclass(frozen=True)
class World:
    """The processes that train one network together; by itself, a world of one.

    Every method but `mark` is a meeting: all processes must call it, in the same order. In a
    world of one each is what it would be without it, at no cost.

    Attributes:
        rank: this process, from 0.
        size: processes.
        local_rank: this process among those of its machine, from 0.
        local_size: processes on this machine.
        marks: how far this process has come; where one hangs, it is behind.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    marks: Marks = field(default_factory=Marks, compare=False, repr=False)

    def mark(self) -> None:
        """Note that this process has come one place further; all come to the same ones."""
        self.marks.count += 1

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
        self.mark()
        shared = torch.tensor(values)  # on the CPU, hence over gloo
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return tuple(shared.tolist())

    def gathered(self, value: T) -> list[T]:
        """Every process's `value`, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        self.mark()
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
        # First the one number: this is done at every step.
        if self.highest(error is not None)[0]:
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
        self.mark()
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
        store = _fresh(store, world, timeout)
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
    watch = _Watch(world, store.clone(), timeout)
    watch.start()
    try:
        yield
    except AgreedError:
        raise
    except Exception as error:
        text = _first_line(error)
        if isinstance(error, RuntimeError) and _is_exchange(error):
            raise UserError(
                watch.cause()
                or f"process {world.rank} of {world.size}: lost the others ({text}); one of them "
                "died, or the network did; continue with run.resume=must"
            ) from error
        watch.tell(f"process {world.rank} of {world.size}: {text}")
        raise
    finally:
        watch.stop()
    dist.destroy_process_group()


def _fresh(store: Any, world: World, timeout: float) -> Any:
    """The part of `store` that belongs to this attempt alone.

    torchrun keeps one store over its restarts, and its count of restarts is not the same on all
    machines (pytorch #135712). So the first process names the attempt, and takes note of the others
    by names of their own: one that meets the name of an earlier attempt is not on its list.

    Raises:
        RuntimeError: the others, or the first, do not come within `timeout` seconds.
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


class _Watch:
    """Ends this process when another one has failed or hangs, also out of a wait without end.

    Every process tells the store each second that it lives and how far it has come. One that waits
    looks at what the others tell, so that it can name the one that it waits for.

    Args:
        world: of this process.
        store: a connection that nobody else uses.
        timeout: seconds after which a process that does not come counts as failed.
    """

    def __init__(self, world: World, store: Any, timeout: float) -> None:
        self._world = world
        self._store = store
        self._timeout = timeout
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()

    def tell(self, text: str) -> None:
        """Let the others know why this process ends; the first to tell is heard."""
        self._done.set()
        self._tell(text)

    def heard(self, seconds: float) -> str | None:
        """What a failed process said, as one line; None if nothing comes within `seconds`."""
        until = time.monotonic() + seconds
        while True:
            try:
                # The thread may hold it for ever, in a call to a store that does not answer.
                if not self._lock.acquire(timeout=max(0.1, until - time.monotonic())):
                    return None
                try:
                    if self._store.check([_FAILURE]):
                        return str(self._store.get(_FAILURE).decode())
                finally:
                    self._lock.release()
            except RuntimeError:
                return None
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)

    def cause(self) -> str | None:
        """Why the others cannot be reached any more, as one line; None if nobody knows."""
        self._lost.set()
        said = self.heard(_GRACE_SECONDS)
        # Without torchrun the first process holds the store.
        if said is None and self._lock.locked() and "TORCHELASTIC_RUN_ID" not in os.environ:
            return _failed(0, self._world.size, "hangs, or its machine has gone")
        return said

    def _tell(self, text: str) -> None:
        try:
            with self._lock:
                self._store.compare_set(_FAILURE, "", text)
        except RuntimeError:
            pass  # the store has gone, and with it those who would listen

    def _run(self) -> None:
        others = _Others(self._world, self._timeout)
        while not self._done.wait(_WATCH_SECONDS):
            said = self.heard(0)
            if said is None:
                try:
                    with self._lock:
                        found = others.missing(self._store, lost=self._lost.is_set())
                except RuntimeError:
                    said = "process 0 or torchrun, which has gone; continue with run.resume=must"
                else:
                    if found is not None:
                        self._tell(found)
                    continue
            if not self._done.wait(_GRACE_SECONDS):
                rank, size = self._world.rank, self._world.size
                print(
                    f"bn-inception: process {rank} of {size} ends, because of {said}",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(2)


class _Others:
    """What the processes of a run tell each other of their progress, and who is missing."""

    def __init__(self, world: World, timeout: float) -> None:
        self._world = world
        self._timeout = timeout
        self._beats = 0
        self._changed: dict[int, tuple[str, float]] = {}

    def missing(self, store: Any, *, lost: bool) -> str | None:
        """Give a sign of life, and name a process that does not come, as one line; or None.

        Args:
            store: where all of them tell.
            lost: whether an exchange with the others has failed: then silence is enough.
        """
        own, size = self._world.rank, self._world.size
        self._beats += 1
        store.set(f"{_SIGN_OF_LIFE}/{own}", f"{self._world.marks.count} {self._beats}")
        waited = self._since(own, str(self._world.marks.count))
        if not (lost or waited > 2 * _WATCH_SECONDS):
            return None
        behind: list[int] = []
        for rank in (rank for rank in range(size) if rank != own):
            key = f"{_SIGN_OF_LIFE}/{rank}"
            said = store.get(key).decode() if store.check([key]) else "0 0"
            if self._since(rank, said) > _SILENT_SECONDS and (lost or waited >= self._timeout):
                return _failed(rank, size, "does not run: stopped, killed, or its machine has gone")
            if int(said.split()[0]) < self._world.marks.count:
                behind.append(rank)
        if behind and waited >= self._timeout:
            seconds = f"{self._timeout:g} s (machine.timeout)"
            return _failed(behind[0], size, f"hangs: the others have waited for it {seconds}")
        return None

    def _since(self, rank: int, said: str) -> float:
        """Seconds for which `rank` has said the same."""
        now = time.monotonic()
        if rank not in self._changed or self._changed[rank][0] != said:
            self._changed[rank] = (said, now)
        return now - self._changed[rank][1]


def _failed(rank: int, size: int, what: str) -> str:
    return f"process {rank} of {size} {what}; continue with run.resume=must"


def _is_exchange(error: RuntimeError) -> bool:
    # gloo's errors are plain RuntimeErrors.
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
