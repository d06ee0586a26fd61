"""Faults done to runs of a second or two, and what is left of the runs afterwards.

A case disturbs a run, heals what it broke, continues with `run.resume=auto` and compares the end
with an undisturbed run: weights, momentum, statistics, best network and every record, bit for bit.
Processes are forked from this one, which has torch in memory, except where torchrun is on trial.
The product code has no hooks: a child replaces a function by name before it starts to train.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import pkgutil
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from processes import free_port
from small_runs import TINY, write_images

import bn_inception
from bn_inception.cli.main import main
from bn_inception.errors import UserError
from bn_inception.network import checkpoint

ROOT = Path(bn_inception.__file__).parents[1]
STEPS, CHECKPOINT_EVERY = 12, 3
GIVEN = (*TINY, "recipe=bn_baseline", "train.log_every=1", "batch.synchronized=false")
SIGNALLED_SECONDS = 5.0
"""Within which a run that gets a signal has saved and ended."""
SECONDS = 120.0
"""After which a run that has not ended is killed; generous, for busy machines."""
TOO_LATE = 99
"""Exit status of a run that a signal reached and that took longer to end."""
KILLED = -signal.SIGKILL
UPDATES = "FAULTS_UPDATES"
"""Names the file of `note_updates` to the ranks that torchrun starts."""

TRAIN_STEP = "bn_inception.training.loop.train_step"
EVALUATE = "bn_inception.training.loop.evaluate"
PLACES = {
    TRAIN_STEP: "the step",
    "torch.Tensor.backward": "the step",
    "torch.optim.SGD.step": "the step",
    EVALUATE: "the evaluation",
    "torch.Tensor.topk": "the evaluation",
    "torch.save": "the save",
    "os.fsync": "the save",
    "os.link": "the save",
    "os.replace": "the save",
    "bn_inception.record.metrics.MetricsLog.append": "the record",
}
"""Functions around whose calls a run is killed. Between `os.link` (the newest checkpoint is also to
be `previous.pt`) and the two `os.replace` lies what is between rename and pointer elsewhere."""

Act = Callable[..., None]


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        kind: a row of the table.
        detail: which of that kind.
        ranks: processes of the run.
        given: overrides of the disturbed run only.
        hook: (function, call number from 1, after rather than before, what is done there); done
            in every rank, `act` decides. Called with the rank and with what the function got.
        disturb: done by the parent while the run goes on; gets the run.
        statuses: exit statuses of which every rank must have one; -N is signal N.
        says: a regular expression that the output must match.
        heal: done to the run folder before the run is continued.
        resumed_says: as `says`, for the run that continues.
        loses: steps that may have to be done again.
        needs: "disk" or "readonly": what the machine must be able to do.
        launcher: torchrun's options, where it starts the ranks; `detail` says what they do.
        before: done in every process of the run before it trains, also in the one that continues.
        spoil: done to the run folder after the fault; with it the run must not continue, and change
            nothing. Returns what undoes it.
        refusal: a regular expression that the refused continuation must match.
    """

    kind: str
    detail: str
    ranks: int = 1
    given: tuple[str, ...] = ()
    hook: tuple[str, int, bool, Act] | None = None
    disturb: Callable[["Started"], None] | None = None
    statuses: frozenset[int] = frozenset({0})
    says: str = ""
    heal: Callable[[Path], None] | None = None
    resumed_says: str = ""
    loses: int = 0
    needs: str = ""
    launcher: tuple[str, ...] = ()
    before: Callable[[], None] | None = None
    spoil: Callable[[Path], Callable[[], None]] | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Tried:
    """What came of a case.

    Attributes:
        problems: what went wrong, in words; empty where the run survived.
        lost: steps that had to be done again.
        skipped: why it could not be tried here; else empty.
    """

    case: Case
    problems: tuple[str, ...] = ()
    lost: int = 0
    skipped: str = ""


# What happens in the child, before and while it trains.


_moment: list[float] = []
"""When the fault was done to this process."""
_arguments: list[str] = []
"""Of the command that this process does."""


def replace(function: str, call: int, after: bool, act: Act, rank: int = 0) -> None:
    """Do `act(rank, *arguments)` before or after call number `call` of the named function."""
    owner, name = _owner(function)
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != call:
            return original(*arguments, **named)
        if not after:
            _moment.append(time.monotonic())
            act(rank, *arguments)
        result = original(*arguments, **named)
        if after:
            _moment.append(time.monotonic())
            act(rank, *arguments)
        return result

    setattr(owner, name, wrapped)


def _owner(function: str) -> tuple[Any, str]:
    place, _, name = function.rpartition(".")
    return pkgutil.resolve_name(place), name


def note_updates(file: Path) -> None:
    """Write a byte after every update, past everything that the run itself writes."""
    owner, name = _owner(TRAIN_STEP)
    original = getattr(owner, name)

    @functools.wraps(original)
    def noted(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        with file.open("ab") as updates:
            updates.write(b".")
        return result

    setattr(owner, name, noted)


def run_folder() -> Path:
    """Of the command that this process does."""
    given = dict(argument.split("=", 1) for argument in _arguments if "=" in argument)
    return Path(given["run.root"]) / given["run.name"]


def count_calls(functions: Sequence[str], file: Path) -> None:
    """Write how often each function is called, when the process ends training."""
    counts: Counter[str] = Counter()

    def counted(function: str) -> None:
        owner, name = _owner(function)
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            counts[function] += 1
            file.write_text(json.dumps(counts))
            return original(*arguments, **named)

        setattr(owner, name, wrapped)

    for function in functions:
        counted(function)


def kill(rank: int, *_: Any) -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def send(number: signal.Signals) -> Act:
    """A signal to this very process."""
    return lambda rank, *_: os.kill(os.getpid(), number)


def only(which: int, act: Act) -> Act:
    """`act` on one rank alone."""
    return lambda rank, *arguments: act(rank, *arguments) if rank == which else None


def half_a_line(rank: int, log: Any, record: Any) -> None:
    """What a machine that fails leaves of a line."""
    log._file.write(b'{"kind": "train", "st')
    kill(rank)


def spoil(rank: int, model: Any, optimizer: Any, images: torch.Tensor, *_: Any) -> None:
    """One pixel that is no number."""
    images[0, 0, 0, 0] = float("nan")


def kill_a_worker(rank: int, *_: Any) -> None:
    """One of this process's loader workers, and time for the news to arrive."""
    worker = multiprocessing.active_children()[0]
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.2)


def kill_in_a_worker(rank: int, *_: Any) -> None:
    """A worker in the middle of its work, while the main process waits for it."""
    if torch.utils.data.get_worker_info() is not None:
        kill(rank)


def hang(rank: int, *_: Any) -> None:
    """As where a network file system does not answer."""
    time.sleep(1000)


def fill_disk(folder: Path) -> Act:
    """Leave 64 KiB of the disk on which `folder` lies; where it is shared, limit files instead."""

    def act(rank: int, *_: Any) -> None:
        if not folder.is_mount():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            return
        ballast = folder / "ballast"
        free = shutil.disk_usage(folder).free
        ballast.write_bytes(b"\0" * max(0, free - 65536))

    return act


def _child(
    case: Case | None,
    arguments: list[str],
    rank: int,
    size: int,
    port: int,
    log: Path,
    prepare: Callable[[], None] | None,
    updates: Path,
) -> NoReturn:
    status = 98
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if size > 1:
            os.environ |= {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
            }
        _arguments[:] = arguments
        if rank == 0:
            note_updates(updates)
        if prepare is not None:
            prepare()
        if case is not None and case.hook is not None:
            replace(*case.hook, rank)
        try:
            main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        late = bool(_moment) and time.monotonic() - _moment[0] > SIGNALLED_SECONDS
        if late and case is not None and "signal" in case.kind:
            status = TOO_LATE
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


# What happens in the parent.


@dataclass
class Started:
    """A run that goes on, on one or several processes."""

    folder: Path
    log: Path
    pids: list[int]
    statuses: dict[int, int] = field(default_factory=dict)
    overdue: bool = False

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Unless it has ended; a process that was not waited for keeps its number."""
        if rank not in self.statuses:
            os.kill(self.pids[rank], number)

    def wait(self, seconds: float = SECONDS) -> list[int]:
        """Exit statuses by rank. A stopped process is killed once the others have ended.

        What has not ended after `seconds` is killed too, and is then `overdue`: a failure, whatever
        the status.
        """
        until = time.monotonic() + seconds
        while len(self.statuses) < len(self.pids):
            for rank, pid in enumerate(self.pids):
                if rank not in self.statuses:
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        self.statuses[rank] = os.waitstatus_to_exitcode(status)
                    elif time.monotonic() > until or self._alone(rank, pid):
                        self.overdue |= time.monotonic() > until
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
        return [self.statuses[rank] for rank in range(len(self.pids))]

    def _alone(self, rank: int, pid: int) -> bool:
        others_ended = len(self.statuses) == len(self.pids) - 1 > 0
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return others_ended and state == "T"

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Bench:
    """Where runs are disturbed: images, undisturbed runs to compare with, and a small disk.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = write_images(root / "images")
        self.small_disk = root / "disk"
        self._number = 0
        self.seconds: dict[int, float] = {}
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> "Bench":
        self.small_disk.mkdir()
        # Needs the right to mount; without it a limit on the size of files stands in.
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(self.small_disk)],
            check=False,
            capture_output=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.small_disk.is_mount():
            subprocess.run(["umount", str(self.small_disk)], check=False)

    def undisturbed(self, ranks: int) -> Path:
        """The run that the others are compared with; made once."""
        folder = self.root / f"whole{ranks}"
        if not folder.exists():
            counts = self.root / "counts.json"
            prepare = functools.partial(count_calls, list(PLACES), counts) if ranks == 1 else None
            begun = time.monotonic()
            started = self.start(folder, ranks=ranks, prepare=prepare)
            statuses = started.wait()
            assert set(statuses) == {0}, started.said()
            self.seconds[ranks] = time.monotonic() - begun
            if ranks == 1:
                self.calls = Counter(json.loads(counts.read_text()))
        return folder

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
        self,
        folder: Path,
        *overrides: str,
        ranks: int = 1,
        case: Case | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Started:
        """Fork the processes of one run."""
        arguments = self.arguments(folder, *overrides)
        self._number += 1
        log = self.root / f"{folder.name}-{self._number}.log"
        log.touch()
        port = free_port()
        pids = []
        sys.stdout.flush()
        sys.stderr.flush()
        for rank in range(ranks):
            pid = os.fork()
            if pid == 0:
                _child(case, arguments, rank, ranks, port, log, prepare, self.updates(folder))
            pids.append(pid)
        return Started(folder, log, pids)

    def updates(self, folder: Path) -> Path:
        """Has a byte for every update of a run, repeated ones included."""
        return self.root / f"{folder.name}.updates"

    def launch(self, folder: Path, case: Case) -> tuple[list[int], str]:
        """Start two ranks with torchrun; the statuses are its own one."""
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            *case.launcher,
            str(Path(__file__)),
            case.detail,
            *self.arguments(folder, "run.resume=auto"),
        ]
        environment = {
            **os.environ,
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            UPDATES: str(self.updates(folder)),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        }
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            timeout=600,
            capture_output=True,
            check=False,
        )
        return [ended.returncode], ended.stdout + ended.stderr

    def attempt(self, case: Case) -> Tried:
        """Disturb a run as `case` says, continue it, and compare."""
        whole = self.undisturbed(case.ranks)
        if reason := _impossible(case):
            return Tried(case, skipped=reason)
        root = self.small_disk if case.needs == "disk" else self.root / "runs"
        self._number += 1
        folder = root / f"run{self._number}"
        problems = []
        if case.launcher:
            statuses, said = self.launch(folder, case)
        else:
            started = self.start(
                folder, *case.given, ranks=case.ranks, case=case, prepare=case.before
            )
            if case.disturb is not None:
                case.disturb(started)
            statuses = started.wait()
            said = started.said()
            if started.overdue:
                problems.append(f"did not end within {SECONDS:g} s: {said.strip()[-2000:]}")
        if not set(statuses) <= case.statuses or ("Traceback" in said and not case.launcher):
            problems.append(f"exit statuses {statuses}: {said.strip()[-2000:]}")
        if not re.search(case.says, said):
            problems.append(f"does not say {case.says!r}: {said.strip()[-2000:]}")
        if case.disturb is not None and set(statuses) == {0}:
            return Tried(case, skipped="the run had ended before")
        if case.heal is not None:
            case.heal(folder)
        if case.spoil is not None:
            problems += self._refused(folder, case)
        resumed = self.start(folder, "run.resume=auto", ranks=case.ranks, prepare=case.before)
        if set(resumed.wait()) != {0} or resumed.overdue:
            problems.append(f"does not continue: {resumed.said().strip()[-2000:]}")
        elif not re.search(case.resumed_says, resumed.said()):
            problems.append(f"continued, does not say {case.resumed_says!r}: {resumed.said()}")
        updates = self.updates(folder)
        lost = (updates.stat().st_size if updates.exists() else 0) - STEPS
        if lost > case.loses:
            problems.append(f"{lost} steps lost, {case.loses} allowed")
        problems += differences(whole, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return Tried(case, tuple(problems), lost)

    def _refused(self, folder: Path, case: Case) -> list[str]:
        """Spoil the folder, see the continuation refused and nothing changed, and undo it."""
        assert case.spoil is not None
        undo = case.spoil(folder)
        before = _contents(folder)
        refused = self.start(folder, "run.resume=auto", ranks=case.ranks)
        statuses, said = refused.wait(), refused.said()
        found = []
        if set(statuses) != {2} or "Traceback" in said or not re.search(case.refusal, said):
            found.append(f"not refused with {case.refusal!r}: {statuses} {said.strip()[-2000:]}")
        if _contents(folder) != before:
            found.append("refused, and changed the folder")
        undo()
        return found


def _impossible(case: Case) -> str:
    if case.needs == "readonly" and os.geteuid() == 0:
        with tempfile.TemporaryDirectory() as name:
            if not _immutable(Path(name), True) or not _immutable(Path(name), False):
                return "as root without chattr nothing is read-only"
    return ""


def _immutable(folder: Path, on: bool) -> bool:
    command = ["chattr", "+i" if on else "-i", str(folder)]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _lock_folder(folder: Path, on: bool) -> None:
    for path in (folder, folder / "checkpoints"):
        if os.geteuid() == 0:
            _immutable(path, on)
        else:
            path.chmod(0o555 if on else 0o755)


def differences(whole: Path, folder: Path) -> list[str]:
    """In which respects a run differs from the undisturbed one; speeds and times are left out."""
    found = []
    for name in ("last.pt", "best.pt"):
        try:
            one, other = (checkpoint.load(run / "checkpoints" / name) for run in (whole, folder))
        except UserError as error:
            found.append(str(error))
            continue
        for key in ("network", "optimizer", "running_statistics", "step", "interval"):
            if not _same(one.get(key), other.get(key)):
                found.append(f"{name}: another {key}")
    if _records(whole) != _records(folder):
        found.append("metrics.jsonl: other records")
    first, second = (_summary(run) for run in (whole, folder))
    found += [
        f"summary.json: {key} is {second.get(key)!r}, not {first.get(key)!r}"
        for key in ("status", "step", "images_seen", "best", "milestones", "started_learning")
        if first.get(key) != second.get(key)
    ]
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _records(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{**record, "images_per_second": None} for record in whole]


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in files}


def _summary(folder: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return loaded


# The faults.


def kills(bench: Bench, seed: int, *, by_time: int, by_place: int) -> Iterator[Case]:
    """`kill -9` at moments drawn by `seed`: of the clock, and before or after calls."""
    bench.undisturbed(1)
    draw = random.Random(seed)
    for number in range(by_time):
        share = draw.random()

        def disturb(started: Started, share: float = share) -> None:
            time.sleep(share * bench.seconds[1])
            started.kill(0)

        yield Case(
            "kill -9, by the clock",
            f"after {share:.0%} of the run's time, {number % 3} loader workers",
            given=(f"data.workers={number % 3}",),
            disturb=disturb,
            statuses=frozenset({KILLED, 0}),
            loses=CHECKPOINT_EVERY,
        )
    functions = list(PLACES)
    for number in range(by_place):
        function = functions[number % len(functions)]
        call = draw.randint(1, bench.calls[function])
        after = draw.random() < 0.5
        act = half_a_line if function.endswith("append") and not after else kill
        where = f"{'after' if after else 'before'} call {call} of {function}"
        yield Case(
            f"kill -9 in {PLACES[function]}",
            where,
            hook=(function, call, after, act),
            statuses=frozenset({KILLED}),
            loses=CHECKPOINT_EVERY,
        )


def signals(seed: int) -> Iterator[Case]:
    """SIGTERM, SIGUSR1, SIGHUP and Ctrl-C to a run of one process, and to any one of two."""
    draw = random.Random(seed)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        for function, call in ((TRAIN_STEP, draw.randint(1, STEPS)), ("torch.Tensor.topk", 2)):
            yield Case(
                "signal to the run",
                f"{number.name} in {PLACES[function]}",
                hook=(function, call, False, send(number)),
                statuses=frozenset({128 + number}),
                says="interrupted at step",
            )
    for number in (signal.SIGTERM, signal.SIGUSR1):
        yield Case(
            "signal to the run",
            f"{number.name} before the first step",
            hook=("bn_inception.training.session.describe", 1, False, send(number)),
            statuses=frozenset({-number}),
        )
    for number in (signal.SIGTERM, signal.SIGHUP):
        yield Case(
            "signal to the run",
            f"{number.name} to the whole process group, workers included",
            given=("data.workers=2",),
            hook=(TRAIN_STEP, 5, False, functools.partial(_send_to_all, number)),
            statuses=frozenset({128 + number}),
            says="interrupted at step 5",
        )
    yield Case(
        "signal to the run",
        "SIGHUP under nohup",
        before=functools.partial(signal.signal, signal.SIGHUP, signal.SIG_IGN),
        hook=(TRAIN_STEP, 5, False, send(signal.SIGHUP)),
        says="finished",
    )
    for rank in (0, 1):
        for function, call in ((TRAIN_STEP, draw.randint(1, STEPS)), ("torch.Tensor.topk", 2)):
            yield Case(
                "signal to one rank of two",
                f"SIGTERM to rank {rank} in {PLACES[function]}",
                ranks=2,
                hook=(function, call, False, only(rank, send(signal.SIGTERM))),
                statuses=frozenset({128 + signal.SIGTERM}),
                says="interrupted at step",
            )


def _send_to_all(number: signal.Signals, rank: int, *_: Any) -> None:
    for process in multiprocessing.active_children():
        assert process.pid is not None
        os.kill(process.pid, number)
    os.kill(os.getpid(), number)


def workers() -> Iterator[Case]:
    """A loader's worker that is killed, as by the kernel for want of memory."""
    dies = "a process that reads images died"
    for ranks, workers, where, hook in (
        (1, 1, "in mid-step", (TRAIN_STEP, 5, False, kill_a_worker)),
        (1, 2, "in mid-step", (TRAIN_STEP, 9, False, kill_a_worker)),
        (1, 2, "in mid-update", ("torch.optim.SGD.step", 6, False, kill_a_worker)),
        (1, 2, "in the evaluation", (EVALUATE, 2, False, kill_a_worker)),
        (
            1,
            2,
            "while it is waited for",
            ("bn_inception.data.loader.read_image", 20, False, kill_in_a_worker),
        ),
        (2, 1, "of rank 1", (TRAIN_STEP, 5, False, only(1, kill_a_worker))),
        (2, 1, "of rank 0", (TRAIN_STEP, 8, False, only(0, kill_a_worker))),
    ):
        yield Case(
            "killed loader worker",
            f"{where}, {workers} of them",
            ranks=ranks,
            given=(f"data.workers={workers}",),
            hook=hook,
            statuses=frozenset({2}),
            says=dies,
        )


def disks(bench: Bench) -> Iterator[Case]:
    """A disk that is full, and a folder that turns read-only."""
    full = fill_disk(bench.small_disk)
    how = "" if bench.small_disk.is_mount() else " (a limit on file sizes stands in for it)"

    def heal(folder: Path) -> None:
        (bench.small_disk / "ballast").unlink(missing_ok=True)

    for where, hook, loses in (
        ("before the third save", ("torch.save", 3, False, full), CHECKPOINT_EVERY),
        ("in a step", (TRAIN_STEP, 8, False, full), CHECKPOINT_EVERY),
        ("before the first save", ("torch.save", 1, False, full), 0),
    ):
        yield Case(
            "full disk",
            where + how,
            hook=hook,
            statuses=frozenset({2}),
            says="bn-inception: .*cannot be written|could not be written",
            heal=heal,
            loses=loses,
            needs="disk",
        )
    for where, hook in (
        ("before the third save", ("torch.save", 3, False)),
        ("in a step", (TRAIN_STEP, 8, False)),
    ):
        yield Case(
            "read-only folder",
            where,
            hook=(*hook, _lock_this_run),
            statuses=frozenset({2}),
            says="could not be written|cannot be written",
            heal=functools.partial(_lock_folder, on=False),
            loses=CHECKPOINT_EVERY,
            needs="readonly",
        )


def _lock_this_run(rank: int, *_: Any) -> None:
    _lock_folder(run_folder(), on=True)


def damage(seed: int, *, flipped: int, cut: int) -> Iterator[Case]:
    """A newest checkpoint with flipped or missing bytes, after a kill at step 8."""
    draw = random.Random(seed)

    def flip(folder: Path) -> None:
        path = folder / "checkpoints" / checkpoint.LAST
        content = bytearray(path.read_bytes())
        # Inside an entry: the padding between them carries nothing.
        with zipfile.ZipFile(path) as archive:
            entry = draw.choice([entry for entry in archive.infolist() if entry.file_size])
        names = struct.unpack_from("<HH", content, entry.header_offset + 26)
        start = entry.header_offset + 30 + sum(names)
        content[start + draw.randrange(entry.file_size)] ^= 1 << draw.randrange(8)
        path.write_bytes(content)

    def shorten(folder: Path) -> None:
        path = folder / "checkpoints" / checkpoint.LAST
        path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])

    for kind, count, heal in (("flipped", flipped, flip), ("missing", cut, shorten)):
        for number in range(count):
            yield Case(
                f"{kind} bytes in the newest checkpoint",
                f"number {number + 1}",
                hook=(TRAIN_STEP, 8, False, kill),
                statuses=frozenset({KILLED}),
                heal=heal,
                resumed_says="damaged.*continuing from previous.pt at step 3",
                loses=2 * CHECKPOINT_EVERY,
            )


def data() -> Iterator[Case]:
    """A number that is none, and an image that one rank of two cannot read."""
    for ranks, which in ((1, 0), (2, 0), (2, 1)):
        yield Case(
            "NaN in the data",
            f"rank {which} of {ranks}",
            ranks=ranks,
            hook=(TRAIN_STEP, 8, False, only(which, spoil)),
            says="diverged at step 8 in layer",
            loses=2 * CHECKPOINT_EVERY,
        )
    for function, call in (("bn_inception.data.loader.read_image", 30),):
        yield Case(
            "unreadable image",
            "on rank 1 of 2",
            ranks=2,
            hook=(function, call, False, only(1, _unreadable)),
            statuses=frozenset({2}),
            says="process 1: .*cannot be read",
        )


def _unreadable(rank: int, *_: Any) -> None:
    from bn_inception.data.pixels.decode import UnreadableImage

    raise UnreadableImage("an image", "as the test wants it")


def ranks() -> Iterator[Case]:
    """A rank that is killed or hangs; the others end and name it."""
    lost = frozenset({KILLED, 2})
    timeout = ("machine.timeout=8",)
    for which in (0, 1):
        yield Case(
            "kill -9 of one rank of two",
            f"rank {which}",
            ranks=2,
            hook=(TRAIN_STEP, 6 + which, False, only(which, kill)),
            statuses=lost,
            says="lost the others" if which == 0 else "process 1 of 2 does not run",
            loses=CHECKPOINT_EVERY,
        )
        yield Case(
            "rank that is stopped",
            f"rank {which} of 2",
            ranks=2,
            given=timeout,
            hook=(TRAIN_STEP, 6 + which, False, only(which, send(signal.SIGSTOP))),
            statuses=lost,
            says=f"process {which} of 2 (hangs|does not run)",
            loses=CHECKPOINT_EVERY,
        )
    yield Case(
        "rank that hangs",
        "rank 1 of 2, at a read that does not return",
        ranks=2,
        given=timeout,
        statuses=lost,
        says="process 1 of 2 hangs: the others have waited",
        hook=("bn_inception.data.loader.read_image", 30, False, only(1, hang)),
        loses=CHECKPOINT_EVERY,
    )


KILL_ONCE, TERM_LAUNCHER = "kill -9 of rank 1 at step 6", "SIGTERM to torchrun at step 6"


def launched() -> Iterator[Case]:
    """What torchrun does by itself."""
    yield Case(
        "kill -9 of a rank under torchrun --max-restarts=2",
        KILL_ONCE,
        ranks=2,
        launcher=("--max-restarts=2",),
        says="finished",
        loses=CHECKPOINT_EVERY,
    )
    yield Case(
        "SIGTERM to the launcher",
        TERM_LAUNCHER,
        ranks=2,
        launcher=("--max-restarts=2",),
        statuses=frozenset({1, 143, -signal.SIGTERM}),
        says="interrupted at step 6",
        loses=0,
    )


def _launched_rank(detail: str, arguments: list[str]) -> None:
    """What torchrun starts: this file, with what is to be done on the way."""
    if os.environ["RANK"] == "0":
        note_updates(Path(os.environ[UPDATES]))
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    rank = int(os.environ["RANK"])
    if detail == KILL_ONCE and first:
        replace(TRAIN_STEP, 6, False, only(1, kill), rank)
    elif detail == TERM_LAUNCHER:

        def terminate(rank: int, *_: Any) -> None:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(1)  # until it has been handed on to both

        replace(TRAIN_STEP, 6, False, only(1, terminate), rank)
    main(arguments)


if __name__ == "__main__":
    _launched_rank(sys.argv[1], sys.argv[2:])
