"""The faults that are tried, kind by kind."""

import errno
import multiprocessing
import os
import random
import re
import shutil
import signal
import struct
import threading
import time
import zipfile
from functools import partial
from multiprocessing.context import ForkProcess

import faults_disk as disk
from faults_bench import (
    BACKWARD,
    CHECKPOINT_EVERY,
    EVALUATION,
    KILLED,
    PLACES,
    STEP,
    Fault,
    Moment,
    kill,
    moments,
)
from small_runs import contents

from bn_inception.cli.main import main

INTERRUPTED = r"interrupted at step {} \(continue with run.resume=must\)"


def faults(bench, seed):
    """All of them, some hundred; moments and bytes are drawn by `seed`."""
    return [
        *kills(bench, random.Random(seed)),
        *disk.power_cuts(bench, seed),
        *signals(),
        *consoles(),
        *no_hard_links(),
        *disk.disks(),
        *files(bench, random.Random(seed)),
        *images(bench),
        *two_starts(),
        *workers(),
        *ranks(),
        *torchrun(),
    ]


def kills(bench, draw):
    """`kill -9` at drawn moments: of the processor's time, and around calls."""
    _, seconds = bench.measured
    for number in range(6):
        share, workers = draw.random(), number % 3
        yield Fault(
            "kill -9",
            f"after {share:.0%} of the run's time, {workers} loader workers",
            Moment("os.mkdir", 1),
            partial(_end_after, share * seconds),
            given=(f"data.workers={workers}",),
            statuses=(-signal.SIGPROF, 0),
        )
    for at in moments(bench, draw, list(PLACES), 24):
        yield Fault("kill -9", f"in {PLACES[at.function]}, {at}", at, kill, statuses=(KILLED,))


def _end_after(seconds, *_):
    """SIGPROF ends a process as SIGKILL does, and a busy machine does not shift it."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def send(number, *_):
    """A signal to this very process."""
    os.kill(os.getpid(), number)


def _send_to_all(number, *_):
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, number)
    send(number)


def _send_twice(number, *_):
    send(number)
    send(number)


def signals():
    """SIGTERM, Ctrl-C, SIGHUP and SIGUSR1, to one process or to several."""

    def interrupted(number, where, at, step, act=send, **more):
        detail, says = f"{number.name} {where}", INTERRUPTED.format(step)
        expected = {"statuses": (128 + number,), "says": says, "loses": 0}
        return Fault("signal", detail, at, partial(act, number), **expected, **more)

    in_step = Moment(STEP, 5)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        yield interrupted(number, "in a step", in_step, 5)
        # The first evaluation is that of step 4; of the saves, step 0's is the first, step 3's the
        # second, after which a signal waits for step 4.
        yield interrupted(number, "in an evaluation", Moment(EVALUATION, 1), 4)
        yield interrupted(number, "in a save", Moment("torch.save", 2), 4)
    for number in (signal.SIGTERM, signal.SIGHUP):
        where = "to the whole process group, workers included"
        yield interrupted(number, where, in_step, 5, _send_to_all, given=("data.workers=2",))
    for rank in (0, 1):
        where, at = f"to rank {rank} of two", Moment(STEP, 5 + rank)
        yield interrupted(signal.SIGTERM, where, at, 5 + rank, ranks=2, rank=rank)
    goes_on = {"says": "finished", "loses": 0}
    ignored, act = (
        partial(signal.signal, signal.SIGHUP, signal.SIG_IGN),
        partial(send, signal.SIGHUP),
    )
    yield Fault("signal", "SIGHUP under nohup", in_step, act, before=ignored, **goes_on)
    act = partial(_send_twice, signal.SIGINT)
    yield Fault("second Ctrl-C", "in a step", in_step, act, statuses=(130,))


def consoles():
    """The console is lost, in mid-run or from its beginning on."""
    lost = partial(Fault, "lost console", loses=0)
    for which, act in (("its reader has gone", _no_reader), ("its disk is full", _full)):
        for workers in (0, 2):
            detail, given = f"{which}, {workers} loader workers", (f"data.workers={workers}",)
            yield lost(detail, Moment(STEP, 2), act, given=given)
    yield lost("| head -1", shell="{python} {train} 2>&1 | head -1")
    yield lost("closed", shell="{python} {train} >&- 2>&-")


def _no_reader(*_):
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)


def _full(*_):
    for descriptor in (1, 2):
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


LAST, PREVIOUS, BEST = (f"checkpoints/{name}.pt" for name in ("last", "previous", "best"))
LOG, CONFIGURATION = "metrics.jsonl", "config.yaml"

# Step 7 is done and step 6 saved; where that checkpoint is lost as well, 4 steps are.
killed_in_step_8 = partial(Fault, at=Moment(STEP, 8), act=kill, statuses=(KILLED,))
FROM_STEP_3 = 1 + CHECKPOINT_EVERY


def no_hard_links():
    """A file system without hard links; its second checkpoint must be whole and synced too."""
    for number in (errno.EPERM, errno.EOPNOTSUPP):
        power = disk.Disk(luck=0, seed=0)
        yield killed_in_step_8(
            "no hard links",
            f"{errno.errorcode[number]}, the power fails and the newest checkpoint is lost",
            act=power.cut,
            before=partial(_refuse_links, number, power),
            between=each(_delete, LAST),
            resumed_says=r"last\.pt: missing; continuing from previous\.pt at step 3",
            loses=FROM_STEP_3,
            unsynced_lost=True,
        )


def _refuse_links(number, power):
    os.link = partial(disk.fail, number)
    power.start()


def files(bench, draw):
    """Files of the run folder that somebody deleted, exchanged, added or damaged."""
    shorten, flip = partial(_shorten, draw), partial(_flip_in_zip, draw)
    deleted = partial(killed_in_step_8, "deleted file")
    foreign = partial(killed_in_step_8, "foreign file")
    damaged = partial(killed_in_step_8, "damaged file")
    missing = r"last\.pt: missing; continuing from previous\.pt"
    for names, expected in (
        ([CONFIGURATION], {"refusal": r"config\.yaml: missing"}),
        (["environment.json"], {"refusal": r"environment\.json: cannot be read"}),
        ([LOG], {"refusal": r"metrics\.jsonl: 0 lines, but the checkpoint was made with"}),
        ([LAST, PREVIOUS], {"refusal": r"holds no last\.pt or previous\.pt"}),
        (["summary.json"], {}),
        (["tensorboard"], {}),
        ([LAST], {"resumed_says": missing, "loses": FROM_STEP_3}),
        ([BEST], {"resumed_says": r"best\.pt is missing", "without": ("best.pt",)}),
    ):
        yield deleted(" and ".join(names), between=each(_delete, *names), **expected)
    for name, refusal in (
        (LAST, r"checkpoint is of another run \(bn_baseline, seed 1"),
        (LOG, r"metrics\.jsonl: other lines than those"),
    ):
        harm = partial(_put_another_runs, bench, name)
        yield foreign(f"another run's {name}", between=harm, refusal=refusal)
    yield foreign(
        "best.pt in the place of last.pt",
        between=lambda folder: shutil.copy(folder / BEST, folder / LAST),
        resumed_says="last.pt: holds no optimizer.*continuing from previous.pt at step 3",
        loses=FROM_STEP_3,
    )
    yield foreign("unfinished files", between=_strew)
    yield foreign(
        "a link that leads out",
        between=lambda folder: (folder / "notes").symlink_to(bench.root),
        refusal="a link that leads out of the run folder",
    )
    previous = r"damaged.*continuing from previous\.pt at step 3"
    for how, harm, number in ("flipped", flip, 3), ("missing", shorten, 2):
        for count in range(number):
            detail, between = f"{how} bytes in last.pt, number {count + 1}", each(harm, LAST)
            yield damaged(detail, between=between, resumed_says=previous, loses=FROM_STEP_3)
    for names, harm, refusal in (
        ([LAST, PREVIOUS], shorten, r"previous\.pt: damaged \(.*?\); use another checkpoint"),
        ([LOG], shorten, r"metrics\.jsonl: \d lines, but the checkpoint was made with 7"),
        ([LOG], _change_digit, r"metrics\.jsonl: other lines than those"),
        ([CONFIGURATION], _change_digit, "was started with another configuration"),
    ):
        how = "shorten" if harm is shorten else "change digit"
        detail = f"{' and '.join(names)}, {how}"
        yield damaged(detail, between=each(harm, *names), refusal=refusal)
    yield damaged(f"{LOG}, half a line at its end", between=each(_half_a_line, LOG))


def each(harm, *names):
    """`harm` to these files of a folder."""
    return lambda folder: [harm(folder / name) for name in names]


def _delete(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put_another_runs(bench, name, folder):
    given = ("run.seed=1", "train.steps=8")
    other = bench.undisturbed("another", *given, fault=Fault("", ""))
    shutil.copy(other / name, folder / name)


def _strew(folder):
    for name in ("last.pt.part", ".last.pt.tmp", ".previous.pt.tmp", ".best.pt.1.tmp"):
        (folder / "checkpoints" / name).write_bytes(b"half a checkp")
    (folder / "metrics.jsonl.part").write_bytes(b'{"kind": "tr')


def _flip_in_zip(draw, path):
    content = bytearray(path.read_bytes())
    # Inside an entry: the padding between them carries nothing.
    with zipfile.ZipFile(path) as archive:
        entry = draw.choice([entry for entry in archive.infolist() if entry.file_size])
    names = struct.unpack_from("<HH", content, entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(names)
    content[start + draw.randrange(entry.file_size)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _shorten(draw, path):
    os.truncate(path, draw.randrange(path.stat().st_size // 2))


def _change_digit(path):
    """In the first line or setting where it goes unnoticed by the form alone."""
    digit = re.compile('(?<="loss": ).' if path.suffix == ".jsonl" else "(?<=seed: ).")
    changed = digit.sub(lambda found: "5" if found[0] == "7" else "7", path.read_text(), count=1)
    path.write_text(changed)


def _half_a_line(path):
    with path.open("ab") as log:
        log.write(b'{"kind": "train", "st')


def images(bench):
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


def _make_unreadable(image, *_):
    """Its bytes are zero, its size and place are the same."""
    whole = image.rename(image.with_suffix(".whole"))
    image.write_bytes(bytes(whole.stat().st_size))


def two_starts():
    """The same command once more, while the run goes on and at the same moment."""
    goes_on = {"says": "finished", "loses": 0}
    for resume in ("auto", "must", "never"):
        detail = f"the second in step 5, run.resume={resume}"
        yield Fault("two starts", detail, Moment(STEP, 5), partial(_start_again, resume), **goes_on)
    yield Fault("two starts", "at once", starts=2, statuses=(0, 2), **goes_on)


def _start_again(resume, run, *_):
    """From within the run, in a process of its own; a failed assertion ends both."""
    before = contents(run.folder)
    second = ForkProcess(target=main, args=([*run.arguments, f"run.resume={resume}"],))
    second.start()
    second.join()
    assert second.exitcode == 2 and "another process is writing" in run.said()
    assert contents(run.folder) == before, "the second start changed the folder"


def workers():
    """A loader's worker that is killed, as by the kernel for want of memory."""
    says = "a process that reads images died"
    died = partial(Fault, "killed loader worker", statuses=(2,), says=says, loses=0)
    one, two = (partial(died, given=(f"data.workers={count}",)) for count in (1, 2))
    in_step = Moment(STEP, 5)
    yield one("before the update, 1 of them", in_step, _kill_a_worker)
    yield two("in a step, 2 of them", Moment(BACKWARD, 9, after=True), _kill_a_worker)
    yield two("in an evaluation, 2 of them", Moment(EVALUATION, 2), _kill_a_worker)
    yield two("while it is waited for, 2 of them", in_step, _kill_workers_later)
    yield one("of rank 1, 1 of them", in_step, _kill_a_worker, ranks=2, rank=1)
    yield one("of rank 0, 1 of them", Moment(STEP, 8), _kill_a_worker, ranks=2)


def _kill_a_worker(*_):
    """And time for the news to arrive."""
    multiprocessing.active_children()[0].kill()
    time.sleep(0.2)


def _kill_workers_later(*_):
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGSTOP)
        threading.Timer(0.5, worker.kill).start()


def hang(*_):
    """As where a network file system does not answer."""
    time.sleep(1000)


def ranks():
    """A rank of two that is killed, stopped or hangs."""
    one = partial(Fault, "rank of two", ranks=2, statuses=(KILLED, 2))
    other = partial(one, rank=1, hangs=True, given=("machine.timeout=8",))
    yield one("kill -9 of rank 0", Moment(STEP, 5), kill, says="lost the others")
    yield one("kill -9 of rank 1", Moment(STEP, 6), kill, rank=1, says="lost the others")
    stop, first = partial(send, signal.SIGSTOP), "Ranks 1 failed to pass"
    yield other("rank 1 is stopped", Moment(STEP, 6), stop, says=first)
    yield other("rank 1 hangs", Moment(BACKWARD, 6), hang, says=first)
    second = "lost the others .*Rank 1 successfully.*from rank 0"
    yield other("rank 0 hangs", Moment(BACKWARD, 6), hang, rank=0, says=second)


def torchrun():
    """A rank that torchrun starts again when it is killed, and torchrun's own end."""
    launcher = "exec {python} -m torch.distributed.run --standalone --nproc-per-node=2"
    under = partial(Fault, "torchrun", at=Moment(STEP, 6), ranks=2, rank=1)
    under = partial(under, shell=f"{launcher} --max-restarts=2 {{train}}")
    yield under("kill -9 of rank 1", act=kill, says="finished", loses=CHECKPOINT_EVERY)
    for number, statuses in (
        (signal.SIGTERM, (1, 143, -signal.SIGTERM)),
        (signal.SIGKILL, (KILLED,)),
    ):
        yield under(
            f"{number.name} to torchrun",
            act=partial(_to_launcher, number),
            statuses=statuses,
            says=INTERRUPTED.format(6),
            loses=0,
        )


def _to_launcher(number, *_):
    """A signal to the process that started this one, and time for it to be handed on."""
    os.kill(os.getppid(), number)
    time.sleep(1)
