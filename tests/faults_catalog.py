"""The faults that are tried, kind by kind."""

import multiprocessing
import os
import random
import shutil
import signal
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import faults_disk as disk
from faults_bench import (
    BACKWARD,
    CHECKPOINT_EVERY,
    EVALUATION,
    KILLED,
    PLACES,
    STEP,
    Bench,
    Fault,
    Moment,
    Run,
    kill,
    moments,
)
from small_runs import contents

from bn_inception.cli.main import main

INTERRUPTED = r"interrupted at step {} \(continue with run.resume=must\)"


def faults(bench: Bench, seed: int) -> list[Fault]:
    """All of them, some hundred; moments and bytes are drawn by `seed`."""
    return [
        *kills(bench, seed, by_clock=6, by_place=24),
        *disk.power_cuts(bench, seed, 12),
        *signals(),
        *consoles(),
        *disk.no_hard_links(),
        *disk.disks(),
        *files(bench, random.Random(seed)),
        *images(bench),
        *two_starts(),
        *workers(),
        *ranks(),
        *torchrun(),
    ]


def kills(bench: Bench, seed: int, *, by_clock: int, by_place: int) -> Iterator[Fault]:
    """`kill -9` at moments drawn by `seed`: of the processor's time, and around calls."""
    draw = random.Random(seed)
    _, seconds = bench.measured
    for number in range(by_clock):
        share = draw.random()
        yield Fault(
            "kill -9",
            f"after {share:.0%} of the run's time, {number % 3} loader workers",
            Moment("os.mkdir", 1),
            partial(_end_after, share * seconds),
            given=(f"data.workers={number % 3}",),
            statuses=(-signal.SIGPROF, 0),
        )
    for at in moments(bench, draw, list(PLACES), by_place):
        detail = f"in {PLACES[at.function]}, {at}"
        yield Fault("kill -9", detail, at, kill, statuses=(KILLED,))


def _end_after(seconds: float, *_: Any) -> None:
    """SIGPROF ends a process as SIGKILL does, and a busy machine does not shift it."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def send(number: signal.Signals, *_: Any) -> None:
    """A signal to this very process."""
    os.kill(os.getpid(), number)


def signals() -> Iterator[Fault]:
    """SIGTERM, Ctrl-C, SIGHUP and SIGUSR1, to one process or to several."""

    def interrupted(
        number: signal.Signals, where: str, at: Moment, step: int, **more: Any
    ) -> Fault:
        says = INTERRUPTED.format(step)
        given = {
            "act": partial(send, number),
            "statuses": (128 + number,),
            "says": says,
            "loses": 0,
        }
        return Fault("signal", f"{number.name} {where}", at, **given | more)

    in_step = Moment(STEP, 5)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        yield interrupted(number, "in a step", in_step, 5)
        # The first evaluation is that of step 4; of the saves, step 0's is the first, step 3's the
        # second, after which a signal waits for step 4.
        yield interrupted(number, "in an evaluation", Moment(EVALUATION, 1), 4)
        yield interrupted(number, "in a save", Moment("torch.save", 2), 4)
    for number in (signal.SIGTERM, signal.SIGHUP):
        where = "to the whole process group, workers included"
        more = {"given": ("data.workers=2",), "act": partial(_send_to_all, number)}
        yield interrupted(number, where, in_step, 5, **more)
    for rank in (0, 1):
        where, at = f"to rank {rank} of two", Moment(STEP, 5 + rank)
        yield interrupted(signal.SIGTERM, where, at, 5 + rank, ranks=2, rank=rank)
    ignored = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    more = {"before": ignored, "statuses": (0,), "says": "finished"}
    yield interrupted(signal.SIGHUP, "under nohup", in_step, 12, **more)
    yield Fault("second Ctrl-C", "in a step", in_step, _interrupt_twice, statuses=(130,))


def _send_to_all(number: signal.Signals, *_: Any) -> None:
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, number)
    send(number)


def _interrupt_twice(*_: Any) -> None:
    send(signal.SIGINT)
    send(signal.SIGINT)


def consoles() -> Iterator[Fault]:
    """The console is lost, in mid-run or from its beginning on."""
    for which, act in (("its reader has gone", _no_reader), ("its disk is full", _full)):
        for workers in (0, 2):
            detail, given = f"{which}, {workers} loader workers", (f"data.workers={workers}",)
            yield Fault("lost console", detail, Moment(STEP, 2), act, given=given, loses=0)
    for detail, shell in (
        ("| head -1", "{python} {train} 2>&1 | head -1"),
        ("closed", "{python} {train} >&- 2>&-"),
    ):
        yield Fault("lost console", detail, shell=shell, loses=0)


def _no_reader(*_: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)


def _full(*_: Any) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


LAST, PREVIOUS, BEST = (f"checkpoints/{name}.pt" for name in ("last", "previous", "best"))
LOG, CONFIGURATION = "metrics.jsonl", "config.yaml"


def files(bench: Bench, draw: random.Random) -> Iterator[Fault]:
    """Files of the run folder that somebody deleted, exchanged, added or damaged."""

    def broken(kind: str, detail: str, harm: Callable[[Path], object], **more: Any) -> Fault:
        """A run that was killed when step 7 was done and step 6 saved."""
        killed = {"at": Moment(STEP, 8), "act": kill, "statuses": (KILLED,)}
        return Fault(kind, detail, **killed, between=harm, **more)

    for names, refusal in (
        ([CONFIGURATION], r"config\.yaml: missing"),
        (["environment.json"], r"environment\.json: cannot be read"),
        ([LOG], r"metrics\.jsonl: 0 lines, but the checkpoint was made with"),
        ([LAST, PREVIOUS], r"holds no last\.pt or previous\.pt"),
    ):
        yield broken("deleted file", " and ".join(names), each(names, delete), refusal=refusal)
    missing = r"last\.pt: missing; continuing from previous\.pt"
    for name, more in (
        ("summary.json", {}),
        ("tensorboard", {}),
        (LAST, {"resumed_says": missing, "older": 1}),
        (BEST, {"resumed_says": r"best\.pt is missing", "without": ("best.pt",)}),
    ):
        yield broken("deleted file", name, each([name], delete), **more)
    for name, refusal in (
        (LAST, r"checkpoint is of another run \(bn_baseline, seed 1"),
        (LOG, r"metrics\.jsonl: other lines than those"),
    ):
        harm = partial(_put_another_runs, bench, name)
        yield broken("foreign file", f"another run's {name}", harm, refusal=refusal)
    of_best = "last.pt: holds no optimizer.*continuing from previous.pt at step 3"
    for detail, harm, more in (
        (
            "best.pt in the place of last.pt",
            lambda folder: shutil.copy(folder / BEST, folder / LAST),
            {"resumed_says": of_best, "older": 1},
        ),
        ("unfinished files", _strew, {}),
        (
            "a link that leads out",
            lambda folder: (folder / "notes").symlink_to(bench.root),
            {"refusal": "a link that leads out of the run folder"},
        ),
    ):
        yield broken("foreign file", detail, harm, **more)
    shorten, flip = partial(_shorten, draw), partial(_flip_in_zip, draw)
    damaged = {"resumed_says": r"damaged.*continuing from previous\.pt at step 3", "older": 1}
    for how, harm, number in ("flipped", flip, 3), ("missing", shorten, 2):
        for count in range(number):
            detail = f"{how} bytes in last.pt, number {count + 1}"
            yield broken("damaged file", detail, each([LAST], harm), **damaged)
    unusable = r"previous\.pt: damaged \(.*?\); use another checkpoint"
    other = "was started with another configuration"
    for names, how, harm, refusal in (
        ([LAST, PREVIOUS], "shorten", shorten, unusable),
        ([LOG], "shorten", shorten, r"metrics\.jsonl: \d lines, but the checkpoint at step 6"),
        ([LOG], "change digit", _change_digit, r"metrics\.jsonl: other lines than those"),
        ([CONFIGURATION], "change digit", _change_digit, other),
    ):
        detail = f"{' and '.join(names)}, {how}"
        yield broken("damaged file", detail, each(names, harm), refusal=refusal)
    yield broken("damaged file", f"{LOG}, half a line at its end", each([LOG], _half_a_line))


def each(names: list[str], harm: Callable[[Path], object]) -> Callable[[Path], object]:
    """`harm` to each of these files of a folder."""
    return lambda folder: [harm(folder / name) for name in names]


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put_another_runs(bench: Bench, name: str, folder: Path) -> None:
    given = ("run.seed=1", "train.steps=8")
    other = bench.undisturbed("another", *given, fault=Fault("", ""))
    shutil.copy(other / name, folder / name)


def _strew(folder: Path) -> None:
    for name in ("last.pt.part", ".last.pt.tmp", ".previous.pt.tmp", ".best.pt.1.tmp"):
        (folder / "checkpoints" / name).write_bytes(b"half a checkp")
    (folder / "metrics.jsonl.part").write_bytes(b'{"kind": "tr')


def _flip_in_zip(draw: random.Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Inside an entry: the padding between them carries nothing.
    with zipfile.ZipFile(path) as archive:
        entry = draw.choice([entry for entry in archive.infolist() if entry.file_size])
    names = struct.unpack_from("<HH", content, entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(names)
    content[start + draw.randrange(entry.file_size)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _shorten(draw: random.Random, path: Path) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size // 2))


def _change_digit(path: Path) -> None:
    """In the first line or setting where it goes unnoticed by the form alone."""
    before, name, after = path.read_text().partition(
        '"loss": ' if path.suffix == ".jsonl" else "seed: "
    )
    path.write_text(before + name + ("5" if after[0] == "7" else "7") + after[1:])


def _half_a_line(path: Path) -> None:
    with path.open("ab") as log:
        log.write(b'{"kind": "train", "st')


def images(bench: Bench) -> Iterator[Fault]:
    """A gradient that is no number, and images that cannot be read."""
    for ranks, which in ((1, 0), (2, 1)):
        yield Fault(
            "NaN in a gradient",
            f"rank {which} of {ranks}",
            Moment(BACKWARD, 8),
            lambda run, loss, *_: loss.register_hook(lambda gradient: gradient * float("nan")),
            ranks=ranks,
            rank=which,
            says=r"diverged at step \d+ in layer",
        )
    for split, ranks in (("train", 1), ("val", 1), ("train", 2)):
        image = sorted((bench.images / split).rglob("*.JPEG"))[3]
        yield Fault(
            "unreadable image",
            f"{split}, {ranks} processes",
            Moment("os.mkdir", 1),
            partial(_make_unreadable, image),
            ranks=ranks,
            statuses=(2,),
            says="cannot be read",
            between=lambda folder, image=image: image.with_suffix(".whole").rename(image),
            loses=0,
        )


def _make_unreadable(image: Path, *_: Any) -> None:
    """Its bytes are zero, its size and place are the same."""
    size = image.stat().st_size
    image.rename(image.with_suffix(".whole"))
    image.write_bytes(bytes(size))


def two_starts() -> Iterator[Fault]:
    """The same command once more, while the run goes on and at the same moment."""
    goes_on: dict[str, Any] = {"says": "finished", "loses": 0}
    for resume in ("auto", "must", "never"):
        detail = f"the second in step 5, run.resume={resume}"
        yield Fault("two starts", detail, Moment(STEP, 5), partial(_start_again, resume), **goes_on)
    yield Fault("two starts", "at once", starts=2, statuses=(0, 2), **goes_on)


def _start_again(resume: str, run: Run, *_: Any) -> None:
    """From within the run, in a process of its own; a failed assertion ends both."""
    before = contents(run.folder)
    second = ForkProcess(target=main, args=([*run.arguments, f"run.resume={resume}"],))
    second.start()
    second.join()
    assert second.exitcode == 2 and "another process is writing" in run.said()
    assert contents(run.folder) == before, "the second start changed the folder"


def workers() -> Iterator[Fault]:
    """A loader's worker that is killed, as by the kernel for want of memory."""
    in_step = Moment(STEP, 5)
    for count, detail, at, act, more in (
        (1, "before the update", in_step, _kill_a_worker, {}),
        (2, "in a step", Moment(BACKWARD, 9, after=True), _kill_a_worker, {}),
        (2, "in an evaluation", Moment(EVALUATION, 2), _kill_a_worker, {}),
        (2, "while it is waited for", in_step, _kill_workers_later, {}),
        (1, "of rank 1", in_step, _kill_a_worker, {"ranks": 2, "rank": 1}),
        (1, "of rank 0", Moment(STEP, 8), _kill_a_worker, {"ranks": 2}),
    ):
        yield Fault(
            "killed loader worker",
            f"{detail}, {count} of them",
            at,
            act,
            given=(f"data.workers={count}",),
            statuses=(2,),
            says="a process that reads images died",
            loses=0,
            **more,
        )


def _kill_a_worker(*_: Any) -> None:
    """And time for the news to arrive."""
    multiprocessing.active_children()[0].kill()
    time.sleep(0.2)


def _kill_workers_later(*_: Any) -> None:
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGSTOP)
        threading.Timer(0.5, worker.kill).start()


def ranks() -> Iterator[Fault]:
    """A rank of two that is killed, stopped or hangs."""
    soon = {"given": ("machine.timeout=8",)}
    stop, stopped = partial(send, signal.SIGSTOP), "process 1 of 2 (hangs|does not run)"
    hangs = "process 1 of 2 hangs: the others have waited"
    for rank, detail, at, act, says, more in (
        (0, "kill -9 of rank 0", Moment(STEP, 5), kill, "lost the others", {}),
        (1, "kill -9 of rank 1", Moment(STEP, 6), kill, "process 1 of 2 does not run", {}),
        (1, "rank 1 is stopped", Moment(STEP, 6), stop, stopped, soon),
        (1, "rank 1 hangs", Moment(BACKWARD, 6), hang, hangs, soon),
    ):
        lost = {"statuses": (KILLED, 2), "says": says}
        yield Fault("rank of two", detail, at, act, ranks=2, rank=rank, **lost, **more)


def hang(*_: Any) -> None:
    """As where a network file system does not answer."""
    time.sleep(1000)


def torchrun() -> Iterator[Fault]:
    """A rank that torchrun starts again when it is killed, and torchrun's own end."""
    redone = {"loses": CHECKPOINT_EVERY}
    stopped = {"statuses": (1, 143, -signal.SIGTERM), "says": INTERRUPTED.format(6), "loses": 0}
    for detail, act, more in (
        ("kill -9 of rank 1", kill, {"says": "finished", **redone}),
        ("SIGTERM to torchrun", partial(_to_launcher, signal.SIGTERM), stopped),
        (
            "kill -9 of torchrun",
            partial(_to_launcher, signal.SIGKILL),
            {"statuses": (KILLED,), **redone},
        ),
    ):
        yield Fault(
            "torchrun",
            detail,
            Moment(STEP, 6),
            act,
            ranks=2,
            rank=1,
            shell="exec {python} -m torch.distributed.run --standalone --nproc-per-node=2 "
            "--max-restarts=2 {train}",
            **more,
        )


def _to_launcher(number: signal.Signals, *_: Any) -> None:
    """A signal to the process that started this one, and time for it to be handed on."""
    os.kill(os.getppid(), number)
    time.sleep(1)
