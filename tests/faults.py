"""Faults done to short runs: what one is, and how a process does it to itself.

What a process replaces before it trains are functions of Python and of torch, never the product's.
"""

import functools
import os
import pkgutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faults_bench import Bench, Started

STEPS, CHECKPOINT_EVERY = 12, 3
KILLED = -signal.SIGKILL
STEP = "torch.optim.SGD.step"
BACKWARD, EVALUATION = "torch.Tensor.backward", "torch.Tensor.softmax"

Act = Callable[..., None]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: a row of the table.
        detail: which of that kind.
        ranks: processes of the run.
        starts: how often the command is started at once.
        given: overrides of the disturbed run only.
        at: (function, call number from 1, after rather than before): where `act` is done, in every
            rank; it is called with the rank and with what the function got.
        act: what is done there.
        before: done in every process of the run before it trains, also in the one that continues.
        shell: a shell's command line in place of the forked process; `{train}` is a Python script
            with its arguments that trains, for an interpreter or for torchrun.
        meanwhile: done by the parent while the run goes on; returns what went wrong.
        statuses: exit statuses of which every process must have one; -N is signal N.
        says: a regular expression that the output must match.
        heal: done to the run folder before the run is continued.
        spoil: done to the run folder after the fault; with it the run must not continue, and change
            nothing. Returns what undoes it.
        refusal: a regular expression that the refused continuation must match.
        resumed_says: as `says`, for the run that continues.
        loses: most steps done twice; None is all after the last completed checkpoint.
        older: checkpoints before that one to which the fault sends the run back.
        unsynced_lost: whether the fault may take records that no checkpoint counts on.
        without: names of files that the run says are lost and may lack at its end.
        impossible: why the machine cannot do it; empty where it can.
    """

    kind: str
    detail: str
    ranks: int = 1
    starts: int = 1
    given: tuple[str, ...] = ()
    at: tuple[str, int, bool] | None = None
    act: Act | None = None
    before: Callable[[], None] | None = None
    shell: str = ""
    meanwhile: Callable[["Bench", "Started"], list[str]] | None = None
    statuses: frozenset[int] = frozenset({0})
    says: str = ""
    heal: Callable[[Path], object] | None = None
    spoil: Callable[[Path], Callable[[], object]] | None = None
    refusal: str = ""
    resumed_says: str = ""
    loses: int | None = None
    older: int = 0
    unsynced_lost: bool = False
    without: tuple[str, ...] = ()
    impossible: str = ""

    def allowed(self, trained: int) -> int:
        """Steps that may be done twice, where `trained` were done before the fault."""
        if self.loses is not None:
            return self.loses
        since_checkpoint = (trained - 1) % CHECKPOINT_EVERY + 1 if trained else 0
        return min(trained, since_checkpoint + self.older * CHECKPOINT_EVERY)


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        problems: what went wrong, in words; empty where the run survived.
        lost: steps that were done twice.
        statuses: exit statuses of the disturbed run, or of the refused continuation.
        seen: what of the output the fault's regular expressions matched.
        skipped: why it could not be tried here; else empty.
    """

    fault: Fault
    problems: tuple[str, ...] = ()
    lost: int = 0
    statuses: tuple[int, ...] = ()
    seen: str = ""
    skipped: str = ""


arguments: list[str] = []
"""Of the command that this process does."""


def run_folder() -> Path:
    """Of the command that this process does."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    return Path(given["run.root"], given["run.name"]).resolve()


def around(function: str, act: Callable[[int, bool, tuple[Any, ...]], None]) -> None:
    """Do `act(call number, whether it is after, arguments)` around calls of the named function."""
    place, _, name = function.rpartition(".")
    owner = pkgutil.resolve_name(place)
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        call = calls
        act(call, False, arguments)
        result = original(*arguments, **named)
        act(call, True, arguments)
        return result

    setattr(owner, name, wrapped)


def note(function: str, file: Path) -> None:
    """Write a byte after every call, past everything that the run itself writes."""

    def write(call: int, after: bool, arguments: tuple[Any, ...]) -> None:
        if after:
            with file.open("ab") as noted:
                noted.write(b".")

    around(function, write)


def do(at: tuple[str, int, bool], act: Act, rank: int) -> None:
    """Do `act(rank, *arguments)` at one call of a function."""

    def chosen(call: int, after: bool, arguments: tuple[Any, ...]) -> None:
        if (call, after) == at[1:]:
            act(rank, *arguments)

    around(at[0], chosen)


def kill(rank: int, *_: Any) -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def send(number: signal.Signals, *, times: int = 1) -> Act:
    """A signal to this very process."""

    def act(rank: int, *_: Any) -> None:
        for _time in range(times):
            os.kill(os.getpid(), number)

    return act


def only(which: int, act: Act) -> Act:
    """`act` on one rank alone."""
    return lambda rank, *arguments: act(rank, *arguments) if rank == which else None


def hang(rank: int, *_: Any) -> None:
    """As where a network file system does not answer."""
    time.sleep(1000)


def to_launcher(number: signal.Signals) -> Act:
    """A signal to the process that started this one, and time for it to be handed on."""

    def act(rank: int, *_: Any) -> None:
        os.kill(os.getppid(), number)
        time.sleep(1)

    return act


IN_STEP_8: dict[str, Any] = {
    "at": (STEP, 8, False),
    "act": kill,
    "statuses": frozenset({KILLED}),
}
"""Step 7 is done and step 6 saved."""
