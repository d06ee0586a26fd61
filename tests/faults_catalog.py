"""The faults that are tried, kind by kind."""

import functools
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults_disk as disk
import faults_files
from faults import (
    BACKWARD,
    CHECKPOINT_EVERY,
    EVALUATION,
    KILLED,
    STEP,
    Act,
    Fault,
    hang,
    kill,
    only,
    run_folder,
    send,
    to_launcher,
)
from faults_bench import PLACES, SECONDS, Bench, Started, moments, train, where
from faults_compared import contents

INTERRUPTED = r"interrupted at step {} \(continue with run.resume=must\)"


def faults(bench: Bench, *, seed: int, mounted: bool) -> list[Fault]:
    """All of them, some hundred; moments and bytes are drawn by `seed`.

    Args:
        mounted: whether the bench has a small disk.
    """
    return [
        *kills(bench, seed, by_clock=6, by_place=24),
        *disk.power_cuts(bench, seed, 12),
        *signals(),
        *consoles(),
        *disk.no_hard_links(),
        *disk.disks(mounted),
        *faults_files.files(bench),
        *faults_files.damage(seed, flipped=3, cut=2),
        *faults_files.images(bench),
        *two_starts(),
        *workers(),
        *ranks(),
        *torchrun(),
    ]


def kills(bench: Bench, seed: int, *, by_clock: int, by_place: int) -> Iterator[Fault]:
    """`kill -9` at moments drawn by `seed`: of the processor's time, and around calls."""
    draw = random.Random(seed)
    bench.undisturbed()
    for number in range(by_clock):
        share = draw.random()
        # SIGPROF ends a process as SIGKILL does, and a busy machine does not shift it.
        clock = functools.partial(signal.setitimer, signal.ITIMER_PROF, share * bench.cpu_seconds)
        yield Fault(
            "kill -9",
            f"after {share:.0%} of the run's time, {number % 3} loader workers",
            given=(f"data.workers={number % 3}",),
            at=("os.mkdir", 1, False),
            act=lambda rank, *_, clock=clock: clock(),
            statuses=frozenset({-signal.SIGPROF, 0}),
        )
    for function, call, after in moments(bench, draw, list(PLACES), by_place):
        yield Fault(
            "kill -9",
            f"in {PLACES[function]}, {where(function, call, after)}",
            at=(function, call, after),
            act=kill,
            statuses=frozenset({KILLED}),
        )


def signals() -> Iterator[Fault]:
    """SIGTERM, Ctrl-C, SIGHUP and SIGUSR1, to one process or to several."""
    # The first evaluation is that of step 4; of the saves, step 0's is the first, step 3's the
    # second, after which a signal waits for step 4.
    places = (
        ("a step", (STEP, 5, False), 5),
        ("an evaluation", (EVALUATION, 1, False), 4),
        ("a save", ("torch.save", 2, False), 4),
    )
    cases: list[tuple[signal.Signals, str, tuple[str, int, bool], int, dict[str, Any]]] = [
        (number, f"{number.name} in {place}", at, step, {"act": send(number)})
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        for place, at, step in places
    ]
    for number in (signal.SIGTERM, signal.SIGHUP):
        detail = f"{number.name} to the whole process group, workers included"
        more = {"given": ("data.workers=2",), "act": functools.partial(_send_to_all, number)}
        cases.append((number, detail, (STEP, 5, False), 5, more))
    for rank in (0, 1):
        more = {"ranks": 2, "act": only(rank, send(signal.SIGTERM))}
        detail = f"SIGTERM to rank {rank} of two"
        cases.append((signal.SIGTERM, detail, (STEP, 5 + rank, False), 5 + rank, more))
    for number, detail, at, step, more in cases:
        yield Fault(
            "signal",
            detail,
            at=at,
            statuses=frozenset({128 + number}),
            says=INTERRUPTED.format(step),
            loses=0,
            **more,
        )
    yield Fault(
        "signal",
        "SIGHUP under nohup",
        before=functools.partial(signal.signal, signal.SIGHUP, signal.SIG_IGN),
        at=(STEP, 5, False),
        act=send(signal.SIGHUP),
        says="finished",
        loses=0,
    )
    yield Fault(
        "second Ctrl-C",
        "in a step",
        at=(STEP, 5, False),
        act=send(signal.SIGINT, times=2),
        statuses=frozenset({130}),
    )


def _send_to_all(number: signal.Signals, rank: int, *_: Any) -> None:
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, number)
    os.kill(os.getpid(), number)


def consoles() -> Iterator[Fault]:
    """The console is lost, in mid-run or from its beginning on."""
    for which, act in (("its reader has gone", _no_reader), ("its disk is full", _full)):
        for workers in (0, 2):
            yield Fault(
                "lost console",
                f"{which}, {workers} loader workers",
                given=(f"data.workers={workers}",),
                at=(STEP, 2, False),
                act=act,
                loses=0,
            )
    for detail, shell in (
        ("| head -1", "{python} {train} 2>&1 | head -1"),
        ("closed", "{python} {train} >&- 2>&-"),
    ):
        yield Fault("lost console", detail, shell=shell, loses=0)


def _no_reader(rank: int, *_: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)


def _full(rank: int, *_: Any) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


def two_starts() -> Iterator[Fault]:
    """The same command once more, while the run goes on and at the same moment."""
    for resume in ("auto", "must", "never"):
        yield Fault(
            "two starts",
            f"the second in step 5, run.resume={resume}",
            at=(STEP, 5, False),
            act=_pause,
            meanwhile=functools.partial(_start_again, resume),
            says="finished",
            loses=0,
        )
    yield Fault(
        "two starts",
        "at once",
        starts=2,
        statuses=frozenset({0, 2}),
        says="finished",
        loses=0,
    )


def _pause(rank: int, *_: Any) -> None:
    paused = run_folder().with_suffix(".paused")
    paused.touch()
    while paused.exists():
        time.sleep(0.01)


def _start_again(resume: str, bench: Bench, started: Started) -> list[str]:
    paused = started.folder.with_suffix(".paused")
    until = time.monotonic() + SECONDS
    while not paused.exists() and time.monotonic() < until:
        time.sleep(0.01)
    before = contents(started.folder)
    second = bench.run(started.folder, f"run.resume={resume}")
    found = []
    if set(second.statuses.values()) != {2} or "another process is writing" not in second.said():
        found.append(f"the second start: {second.statuses} {second.said()}")
    if contents(started.folder) != before:
        found.append("the second start changed the folder")
    paused.unlink(missing_ok=True)
    return found


def workers() -> Iterator[Fault]:
    """A loader's worker that is killed, as by the kernel for want of memory."""
    for ranks, count, moment, at, act in (
        (1, 1, "before the update", (STEP, 5, False), _kill_a_worker),
        (1, 2, "in a step", (BACKWARD, 9, True), _kill_a_worker),
        (1, 2, "in an evaluation", (EVALUATION, 2, False), _kill_a_worker),
        (1, 2, "while it is waited for", (STEP, 5, False), _kill_a_worker_later),
        (2, 1, "of rank 1", (STEP, 5, False), only(1, _kill_a_worker)),
        (2, 1, "of rank 0", (STEP, 8, False), only(0, _kill_a_worker)),
    ):
        yield Fault(
            "killed loader worker",
            f"{moment}, {count} of them",
            ranks=ranks,
            given=(f"data.workers={count}",),
            at=at,
            act=act,
            statuses=frozenset({2}),
            says="a process that reads images died",
            loses=0,
        )


def _kill_a_worker(rank: int, *_: Any) -> None:
    """And time for the news to arrive."""
    multiprocessing.active_children()[0].kill()
    time.sleep(0.2)


def _kill_a_worker_later(rank: int, *_: Any) -> None:
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGSTOP)
    if os.fork() == 0:
        time.sleep(0.5)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)
        os._exit(0)


def ranks() -> Iterator[Fault]:
    """A rank of two that is killed, stopped or hangs."""
    lost = frozenset({KILLED, 2})
    soon = ("machine.timeout=8",)
    for which in (0, 1):
        yield Fault(
            "rank of two",
            f"kill -9 of rank {which}",
            ranks=2,
            at=(STEP, 5 + which, False),
            act=only(which, kill),
            statuses=lost,
            says="lost the others" if which == 0 else "process 1 of 2 does not run",
        )
    for detail, at, act, says in (
        ("is stopped", (STEP, 6, False), send(signal.SIGSTOP), "(hangs|does not run)"),
        ("hangs", (BACKWARD, 6, False), hang, "hangs: the others have waited"),
    ):
        yield Fault(
            "rank of two",
            f"rank 1 {detail}",
            ranks=2,
            given=soon,
            at=at,
            act=only(1, act),
            statuses=lost,
            says=f"process 1 of 2 {says}",
        )


def torchrun() -> Iterator[Fault]:
    """A rank that torchrun starts again when it is killed, and torchrun's own end."""
    interrupted = {"statuses": frozenset({1, 143, -signal.SIGTERM}), "says": INTERRUPTED.format(6)}
    cases: tuple[tuple[str, Act, dict[str, Any]], ...] = (
        ("kill -9 of rank 1", kill, {"says": "finished", "loses": CHECKPOINT_EVERY}),
        ("SIGTERM to torchrun", to_launcher(signal.SIGTERM), {**interrupted, "loses": 0}),
        (
            "kill -9 of torchrun",
            to_launcher(signal.SIGKILL),
            {"statuses": frozenset({KILLED}), "loses": CHECKPOINT_EVERY},
        ),
    )
    for detail, act, more in cases:
        yield Fault(
            "torchrun",
            detail,
            ranks=2,
            at=(STEP, 6, False),
            act=only(1, act),
            shell="exec {python} -m torch.distributed.run --standalone --nproc-per-node=2 "
            "--max-restarts=2 {train}",
            **more,
        )


def _in_shell(kind: str, detail: str, steps: str, *arguments: str) -> None:
    """One process of a run that a shell has started."""
    (fault,) = (
        fault
        for fault in (*consoles(), *torchrun())
        if (fault.kind, fault.detail) == (kind, detail)
    )
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    train(fault, list(arguments), int(os.environ.get("RANK", "0")), Path(steps), first=first)


if __name__ == "__main__":
    _in_shell(*sys.argv[1:])
