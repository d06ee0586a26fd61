"""What a fault is, and where faults are done to short runs.

A fault disturbs a run, and the run is continued with `run.resume=auto`. It must then end bit for
bit as an undisturbed run, and what was done twice must be no more than what followed the last
completed checkpoint. Steps are counted where the optimizer makes them. A process that does not end
by itself is a failure, and so is a fault that never strikes.

Processes are forked from this one, which has torch in memory, except where a shell starts them.
Runs are known by their command line and by the files that the documentation names. What a process
replaces before it trains are functions of Python and of torch, never the product's.
"""

import contextlib
import functools
import itertools
import json
import os
import pickle
import pkgutil
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import NamedTuple

from processes import free_port, rank_environment
from small_runs import Runs, contents, differences, write_images

from bn_inception.cli.main import main

STEPS, CHECKPOINT_EVERY = 12, 3
KILLED = -signal.SIGKILL
STEP = "torch.optim.SGD.step"
BACKWARD, EVALUATION = "torch.Tensor.backward", "torch.Tensor.softmax"
GIVEN = ("recipe=bn_baseline", "train.log_every=1", "batch.synchronized=false")
PLACES = {
    "os.mkdir": "making the folder",
    BACKWARD: "a step",
    STEP: "a step",
    EVALUATION: "an evaluation",
    "torch.save": "a save",
    "os.fsync": "a save",
    "os.link": "a save",
    "os.replace": "a save",
}
"""Functions around whose calls runs are disturbed. Between `os.link` (the newest checkpoint is also
to be `previous.pt`) and the two `os.replace` lies what is between rename and pointer elsewhere."""


Act = Callable[..., object]


class Moment(NamedTuple):
    """Before or after one call of a function, the first being 1; 0 is every call."""

    function: str
    call: int
    after: bool = False

    def __str__(self):
        return f"{'after' if self.after else 'before'} call {self.call} of {self.function}"


@dataclass(frozen=True)
class Fault:
    """What strikes, what the run must then say, and what it may lose."""

    kind: str  # a row of the table
    detail: str  # which of that kind
    at: Moment | None = None  # when it strikes
    act: Act | None = None  # gets the `Run`, and what the function got
    ranks: int = 1  # processes of the run
    rank: int = 0  # the one that is struck
    hangs: bool = False  # whether that one never ends: it is killed then, as torchrun would
    starts: int = 1  # how often the command is started at once
    given: tuple[str, ...] = ()  # overrides of the disturbed run only
    before: Callable[[], object] | None = None  # in each process, and in those that continue
    # In place of the forked process. `{train}` is a Python script with its arguments that trains,
    # for an interpreter or for torchrun.
    shell: str = ""
    on_small_disk: bool = False  # whether it needs one
    statuses: tuple[int, ...] = (0,)  # every process must end with one of these; -N is signal N
    says: str = ""  # a regular expression that the output must match
    between: Callable[[Path], object] | None = None  # done to the run folder before it goes on
    # As `says`. With what was done to its folder, the run must not go on, and change nothing; then
    # the folder is put back.
    refusal: str = ""
    resumed_says: str = ""  # as `says`, for the run that goes on
    loses: int | None = None  # most steps done twice; None is all after the last checkpoint
    unsynced_lost: bool = False  # whether it may take records that no checkpoint counts on
    without: tuple[str, ...] = ()  # files that the run says are lost and may lack at its end

    def allowed(self, trained):
        """Steps that may be done twice, where `trained` were done before the fault."""
        if self.loses is not None:
            return self.loses
        return (trained - 1) % CHECKPOINT_EVERY + 1 if trained else 0


class Outcome(NamedTuple):
    """What came of a fault."""

    fault: Fault
    problems: tuple[str, ...] = ()  # what went wrong, in words; empty where the run survived
    lost: int = 0  # steps that were done twice
    statuses: tuple[int, ...] = ()  # of the disturbed run, or of the refused continuation
    seen: str = ""  # what of the output the fault's regular expressions matched
    skipped: str = ""  # why it could not be tried here


def do(at, act):
    """Do `act` at a moment of this process, with the arguments that the function gets."""
    place, _, name = at.function.rpartition(".")
    owner = pkgutil.resolve_name(place)
    original = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(original)
    def wrapped(*arguments, **named):
        now = at.call in (0, next(calls))
        if now and not at.after:
            act(*arguments)
        result = original(*arguments, **named)
        if now and at.after:
            act(*arguments)
        return result

    setattr(owner, name, wrapped)


def count(function, file):
    """Have this process write a byte after every call, past everything that a run itself writes."""

    def write(*_):
        with file.open("ab") as counted:
            counted.write(b".")

    do(Moment(function, 0, after=True), write)


def kill(*_):
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Run:
    """A run that goes on, on one or several processes."""

    arguments: list[str]
    folder: Path
    log: Path  # where its output goes; what the bench notes of it lies beside
    processes: list[ForkProcess] = field(default_factory=list)
    hanging: int | None = None  # the rank that is killed once the others have ended
    overdue: bool = False  # whether some had to be killed because they did not end

    def beside(self, what):
        return self.log.with_suffix(f".{what}")

    def train(self, fault, rank):
        """What each process does, with its fault."""

        def strike(*arguments):
            self.beside("struck").touch()
            fault.act(self, *arguments)

        if rank == 0:
            count(STEP, self.beside("steps"))
        if fault.before is not None:
            fault.before()
        if fault.at is not None and rank == fault.rank:
            do(fault.at, strike)
        main(self.arguments)

    def wait(self, seconds):
        """Until all have ended, or `seconds` have passed."""
        until = time.monotonic() + seconds
        while left := self._left():
            late = time.monotonic() > until
            self.overdue |= late
            hanging = None if self.hanging is None else self.processes[self.hanging].pid
            for pid in left if late or left == [hanging] else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _left(self):
        """Those that go on; the ones that a shell's command leaves behind, by their arguments."""
        left = [process.pid for process in self.processes if process.is_alive()]
        for arguments in [] if left else Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.beside("fault")) in arguments.read_bytes():
                    left.append(int(arguments.parent.name))
        return left

    def trained(self):
        """Updates made."""
        steps = self.beside("steps")
        return steps.stat().st_size if steps.exists() else 0

    def statuses(self):
        return tuple(process.exitcode for process in self.processes)

    def said(self):
        return self.log.read_text(errors="replace")

    def problems(self, statuses, says, *, traces=False):
        """What is wrong with how it ended; `traces` is whether a traceback may be seen."""
        said = self.said()
        found = {
            "did not end by itself": self.overdue,
            f"exit statuses {self.statuses()}": not set(self.statuses()) <= set(statuses),
            "a traceback": "Traceback" in said and not traces,
            f"does not say {says!r}": not re.search(says, said),
        }
        return [f"{problem}: {said.strip()[-2000:]}" for problem, is_so in found.items() if is_so]


def _child(run, fault, rank, port):
    output = os.open(run.log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if fault.shell:
        _to_shell(run, fault)
    if fault.ranks > 1:
        os.environ |= rank_environment(rank, fault.ranks, port)
    run.train(fault, rank)


def _to_shell(run, fault):
    run.beside("fault").write_bytes(pickle.dumps((run, fault)))
    script = shlex.join([__file__, str(run.beside("fault"))])
    command = fault.shell.format(python=sys.executable, train=script)
    root = str(Path(__file__).parents[1])
    settings = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    os.execvpe("bash", ["bash", "-o", "pipefail", "-c", command], os.environ | settings)


class Bench:
    """Where runs are disturbed: images, and undisturbed runs to compare with.

    Args:
        root: an empty folder.
        seconds: after which a run that has not ended has failed; generous, for busy machines.
    """

    def __init__(self, root, seconds=180.0):
        self.root = root.resolve()
        self.seconds = seconds
        self.images = write_images(self.root / "images")
        self.number = 0

    def run(self, folder, *overrides, fault):
        """Fork the processes of a run, and wait for their end."""
        given = Runs(folder.parent, self.images, *GIVEN).arguments(folder.name, *overrides)
        self.number += 1
        run = Run(["train", *given], folder, self.root / f"{folder.name}-{self.number}.log")
        run.log.touch()
        port = free_port()
        for rank in [*range(1 if fault.shell else fault.ranks)] * fault.starts:
            process = ForkProcess(target=_child, args=(run, fault, rank, port))
            process.start()
            run.processes.append(process)
        run.hanging = fault.rank if fault.hangs and fault.at else None
        run.wait(self.seconds)
        return run

    def undisturbed(self, name, *overrides, fault):
        """The folder of a run that nothing happens to; made once."""
        folder = self.root / name
        if not folder.exists():
            run = self.run(folder, *overrides, fault=fault)
            assert set(run.statuses()) == {0}, run.said()
        return folder

    @functools.cached_property
    def measured(self):
        """A run's calls of each of `PLACES`, and its seconds of the processor."""
        files = {function: self.root / f"{function}.calls" for function in PLACES}

        def before():
            for function, file in files.items():
                count(function, file)

        begun = sum(os.times()[2:4])  # of children that have ended
        self.undisturbed("counted", fault=Fault("", "", before=before))
        seconds = sum(os.times()[2:4]) - begun
        return {function: file.stat().st_size for function, file in files.items()}, seconds


def moments(bench, draw, functions, number):
    """Before or after drawn calls of each of `functions` in turn."""
    calls, _ = bench.measured
    for function in itertools.islice(itertools.cycle(functions), number):
        yield Moment(function, draw.randint(1, calls[function]), draw.random() < 0.5)


def attempt(bench, fault):
    """Disturb a run as `fault` says, continue it, and compare."""
    place = bench.root / "disk"
    if not place.is_mount():
        if fault.on_small_disk:
            return Outcome(fault, skipped="this user may not mount a small disk")
        place = bench.root / "runs"
        place.mkdir(exist_ok=True)
    over = replace(fault, at=None, starts=1, shell="")
    whole = bench.undisturbed(f"whole{fault.ranks}", fault=replace(over, before=None))
    folder = place / f"run{bench.number}"
    run = bench.run(folder, "run.resume=auto", *fault.given, fault=fault)
    problems = run.problems(fault.statuses, fault.says, traces=bool(fault.shell))
    if fault.at is not None and not run.beside("struck").exists():
        return Outcome(fault, ("the fault never struck", *problems))
    trained = run.trained()
    log = folder / "metrics.jsonl"
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    recorded = sum(b'"kind": "train"' in line for line in lines)
    if set(run.statuses()) == {0} and "diverged" not in run.said() and trained < STEPS:
        problems.append(f"exit 0 after {trained} steps")
    if recorded < trained - 1 and not fault.unsynced_lost and not fault.shell:
        problems.append(f"{trained} steps trained, metrics.jsonl ends at {recorded}")
    kept = bench.root / "kept"
    if fault.refusal:
        shutil.copytree(folder, kept, symlinks=True)
    if fault.between is not None:
        fault.between(folder)
    ended = run
    if fault.refusal:
        before = contents(folder)
        ended = bench.run(folder, "run.resume=auto", fault=over)
        problems += ended.problems((2,), fault.refusal)
        if contents(folder) != before:
            problems.append("refused, and changed the folder")
        shutil.rmtree(folder)
        shutil.move(kept, folder)
    continued = bench.run(folder, "run.resume=auto", fault=over)
    problems += continued.problems((0,), fault.resumed_says)
    lost = trained + continued.trained() - STEPS
    if lost > fault.allowed(trained):
        problems.append(f"{lost} steps lost, {fault.allowed(trained)} allowed")
    if (said := _resumed_at(folder)) != STEPS - continued.trained():
        problems.append(f"says it goes on from {said}, and does {continued.trained()} steps")
    problems += differences(whole, folder, fault.without)
    shutil.rmtree(folder, ignore_errors=True)
    told = continued if fault.resumed_says else ended
    seen = re.search(fault.resumed_says or fault.refusal or fault.says, told.said())
    return Outcome(fault, tuple(problems), lost, ended.statuses(), seen.group() if seen else "")


def _resumed_at(folder):
    """The step that the run says it was continued from last; 0 where it began anew."""
    environment = folder / "environment.json"
    resumed = environment.exists() and json.loads(environment.read_bytes()).get("resumed")
    return int(resumed[-1]["step"]) if resumed else 0


if __name__ == "__main__":  # in a process that a shell has started
    run, fault = pickle.loads(Path(sys.argv[1]).read_bytes())
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        fault = replace(fault, at=None)
    run.train(fault, int(os.environ.get("RANK", "0")))
