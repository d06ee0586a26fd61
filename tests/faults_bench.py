"""Where faults are done to short runs, and what is left of the runs afterwards.

A fault disturbs a run; what it broke is healed, and the run is continued with `run.resume=auto`. It
must then end bit for bit as an undisturbed run, and what was done twice must be no more than what
followed the last completed checkpoint. Steps are counted where the optimizer makes them. A process
that does not end by itself is a failure.

Processes are forked from this one, which has torch in memory, except where a shell starts them.
Runs are known by their command line and by the files that the documentation names.
"""

import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import faults
from faults import BACKWARD, EVALUATION, STEP, STEPS, Fault, Outcome, do, note
from faults_compared import contents, differences, recorded_step, resumed_at
from processes import free_port, rank_environment
from small_runs import TINY, write_images

import bn_inception
from bn_inception.cli.main import main

ROOT = Path(bn_inception.__file__).parents[1]
GIVEN = (*TINY, "recipe=bn_baseline", "train.log_every=1", "batch.synchronized=false")
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
NONE = Fault("", "")
SECONDS = 180.0
"""After which a run that has not ended has failed, and is killed; generous, for busy machines."""


def train(fault: Fault, arguments: list[str], rank: int, steps: Path, *, first: bool) -> None:
    """What each process of a run does, with its fault; `steps` gets a byte for every update."""
    faults.arguments[:] = arguments
    if rank == 0:
        note(STEP, steps)
    if fault.before is not None:
        fault.before()
    if fault.at is not None and fault.act is not None and first:
        do(fault.at, fault.act, rank)
    main(arguments)


def _to_shell(fault: Fault, arguments: list[str], steps: Path) -> NoReturn:
    script = [str(ROOT / "tests" / "faults_catalog.py"), fault.kind, fault.detail, str(steps)]
    command = fault.shell.format(python=sys.executable, train=shlex.join([*script, *arguments]))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    settings = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    os.execvpe("bash", ["bash", "-o", "pipefail", "-c", command], os.environ | settings)


def _child(
    fault: Fault, arguments: list[str], rank: int, port: int, started: "Started"
) -> NoReturn:
    status = 98
    try:
        output = os.open(started.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if fault.shell and started.first:
            _to_shell(fault, arguments, started.steps)
        if fault.ranks > 1:
            os.environ |= rank_environment(rank, fault.ranks, port)
        try:
            train(fault, arguments, rank, started.steps, first=started.first)
        except SystemExit as end:
            status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


@dataclass
class Started:
    """A run that goes on, on one or several processes.

    Attributes:
        folder: of the run.
        log: where its output goes.
        first: whether the fault is still to come.
        cpu_seconds: of the processes that have ended.
        overdue: whether some had to be killed because they did not end.
    """

    folder: Path
    log: Path
    first: bool
    pids: list[int] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    overdue: bool = False

    @property
    def steps(self) -> Path:
        """Has a byte for every update."""
        return self.log.with_suffix(".steps")

    def trained(self) -> int:
        """Updates made."""
        return self.steps.stat().st_size if self.steps.exists() else 0

    def wait(self, seconds: float) -> None:
        """Until all have ended, or `seconds` have passed.

        One that its fault has stopped (SIGSTOP) is killed once the others have ended.
        """
        until = time.monotonic() + seconds
        while len(self.statuses) < len(self.pids) or self._orphans():
            late = time.monotonic() > until
            self.overdue |= late
            for pid in self._orphans() if late else []:
                os.kill(pid, signal.SIGKILL)
            for rank, pid in enumerate(self.pids):
                if rank in self.statuses:
                    continue
                ended, status, usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    self.statuses[rank] = os.waitstatus_to_exitcode(status)
                    self.cpu_seconds += usage.ru_utime + usage.ru_stime
                elif late or self._stopped_alone(pid):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _stopped_alone(self, pid: int) -> bool:
        others_ended = len(self.statuses) == len(self.pids) - 1 > 0
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return others_ended and state == "T"

    def _orphans(self) -> list[int]:
        """Processes that a shell's command has left behind, by their arguments."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.steps) in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return [pid for pid in found if pid not in self.pids]

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Bench:
    """Where runs are disturbed: images, and undisturbed runs to compare with.

    Args:
        root: an empty folder.
        seconds: after which a run that has not ended has failed.
    """

    def __init__(self, root: Path, seconds: float = SECONDS) -> None:
        self.root = root.resolve()
        self.seconds = seconds
        self.images = write_images(self.root / "images")
        self.calls: dict[str, int] = {}
        self.cpu_seconds = 0.0
        self.number = 0

    def undisturbed(self, ranks: int = 1) -> Path:
        """The run that the others are compared with; made once."""
        folder = self.root / f"whole{ranks}"
        if not folder.exists():
            started = self.run(folder, fault=Fault("", "", ranks=ranks))
            assert set(started.statuses.values()) == {0}, started.said()
            self.cpu_seconds = self.cpu_seconds or started.cpu_seconds
        return folder

    def count_calls(self, functions: list[str]) -> None:
        """Of a run of one process, by function, into `calls`."""
        files = {function: self.root / f"{function}.calls" for function in functions}

        def before() -> None:
            for function, file in files.items():
                note(function, file)

        started = self.run(self.root / "counted", fault=Fault("", "", before=before))
        assert set(started.statuses.values()) == {0}, started.said()
        uncalled = [function for function, file in files.items() if not file.exists()]
        assert not uncalled, f"a run no longer calls {uncalled}"
        self.calls = {function: file.stat().st_size for function, file in files.items()}

    def arguments(self, folder: Path, *overrides: str) -> list[str]:
        return [
            "train",
            *GIVEN,
            f"run.root={folder.parent}",
            f"run.name={folder.name}",
            f"data.root={self.images}",
            *overrides,
        ]

    def start(
        self, folder: Path, *overrides: str, fault: Fault = NONE, first: bool = False
    ) -> Started:
        """Fork the processes of one run."""
        arguments = self.arguments(folder, *overrides)
        self.number += 1
        log = self.root / f"{folder.name}-{self.number}.log"
        log.touch()
        started = Started(folder, log, first)
        port = free_port()
        sys.stdout.flush()
        sys.stderr.flush()
        processes = 1 if fault.shell and first else fault.ranks
        for rank in [*range(processes)] * (fault.starts if first else 1):
            pid = os.fork()
            if pid == 0:
                _child(fault, arguments, rank, port, started)
            started.pids.append(pid)
        return started

    def run(self, folder: Path, *overrides: str, fault: Fault = NONE) -> Started:
        """Start a run, and wait for its end."""
        started = self.start(folder, *overrides, fault=fault)
        started.wait(self.seconds)
        return started


def moments(
    bench: Bench, draw: random.Random, functions: list[str], number: int
) -> Iterator[tuple[str, int, bool]]:
    """Before or after drawn calls of each of `functions` in turn."""
    if not bench.calls:
        bench.count_calls(list(PLACES))
    for count in range(number):
        function = functions[count % len(functions)]
        yield function, draw.randint(1, bench.calls[function]), draw.random() < 0.5


def where(function: str, call: int, after: bool) -> str:
    return f"{'after' if after else 'before'} call {call} of {function}"


def attempt(bench: Bench, fault: Fault) -> Outcome:
    """Disturb a run as `fault` says, continue it, and compare."""
    if fault.impossible:
        return Outcome(fault, skipped=fault.impossible)
    whole = bench.undisturbed(fault.ranks)
    bench.number += 1
    place = bench.root / ("disk" if (bench.root / "disk").is_mount() else "runs")
    place.mkdir(exist_ok=True)
    folder = place / f"run{bench.number}"
    given = ("run.resume=auto", *fault.given)
    run = bench.start(folder, *given, fault=fault, first=True)
    problems = fault.meanwhile(bench, run) if fault.meanwhile is not None else []
    run.wait(bench.seconds)
    problems += _wrong(run, fault.statuses, fault.says, traces=bool(fault.shell))
    if set(run.statuses.values()) == {0} and "diverged" not in run.said():
        problems += [f"exit 0 after {run.trained()} steps"] * (run.trained() < STEPS)
    recorded = recorded_step(folder)
    if recorded < run.trained() - 1 and not fault.unsynced_lost and not fault.shell:
        problems.append(f"{run.trained()} steps trained, metrics.jsonl ends at {recorded}")
    if fault.heal is not None:
        fault.heal(folder)
    refused = _refused(bench, folder, fault, problems) if fault.spoil is not None else None
    continued = bench.run(folder, "run.resume=auto", fault=fault)
    problems += _wrong(continued, frozenset({0}), fault.resumed_says)
    lost = run.trained() + continued.trained() - STEPS
    if lost > fault.allowed(run.trained()):
        problems.append(f"{lost} steps lost, {fault.allowed(run.trained())} allowed")
    if (said := resumed_at(folder)) != STEPS - continued.trained():
        problems.append(f"says it goes on from {said}, and does {continued.trained()} steps")
    problems += differences(whole, folder, fault.without)
    shutil.rmtree(folder, ignore_errors=True)
    told = refused or run
    seen = re.search(fault.refusal or fault.says, told.said())
    words = seen.group() if seen else ""
    if fault.resumed_says and (seen := re.search(fault.resumed_says, continued.said())):
        words = seen.group()
    return Outcome(fault, tuple(problems), lost, tuple(told.statuses.values()), words)


def _wrong(run: Started, statuses: frozenset[int], says: str, *, traces: bool = False) -> list[str]:
    said = run.said()
    found = []
    if run.overdue:
        found.append("did not end by itself")
    if not set(run.statuses.values()) <= statuses:
        found.append(f"exit statuses {list(run.statuses.values())}")
    if "Traceback" in said and not traces:
        found.append("a traceback")
    if not re.search(says, said):
        found.append(f"does not say {says!r}")
    return [f"{problem}: {said.strip()[-2000:]}" for problem in found]


def _refused(bench: Bench, folder: Path, fault: Fault, problems: list[str]) -> Started:
    """Spoil the folder, see the continuation refused and nothing changed, and undo it."""
    assert fault.spoil is not None
    undo = fault.spoil(folder)
    before = contents(folder)
    refused = bench.run(folder, "run.resume=auto", fault=Fault("", "", ranks=fault.ranks))
    problems += _wrong(refused, frozenset({2}), fault.refusal)
    if contents(folder) != before:
        problems.append("refused, and changed the folder")
    undo()
    return refused
