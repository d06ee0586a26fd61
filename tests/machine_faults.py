"""Faults of what a run stands on: the power, the file system, the console, the files themselves.

Cases for `faults.Bench`, which see.
"""

import errno
import functools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
from faults import CHECKPOINT_EVERY, KILLED, TRAIN_STEP, Case, kill

from bn_inception.network import checkpoint


class Disk:
    """What of a run folder a power cut leaves: contents and names as they were last synced.

    A file that was written and not synced is empty; a name that was made, moved or removed counts
    once its folder is synced. Folders themselves are there at once.
    """

    def __init__(self) -> None:
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, dict[str, int]] = {}
        self._held: list[int] = []
        self._sync = os.fsync

    def start(self) -> None:
        """Note what is synced from here on in this process."""
        os.fsync = self._noted

    def _noted(self, descriptor: Any) -> None:
        self._sync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._names[str(path)] = {
                entry.name: entry.stat().st_ino for entry in os.scandir(path) if entry.is_file()
            }
        else:
            self._contents[os.fstat(descriptor).st_ino] = path.read_bytes()
            self._held.append(os.dup(descriptor))  # or the number would be given to another file

    def cut(self, rank: int, *_: Any) -> None:
        """Leave of the run folder what was synced, and end."""
        for folder, _, names in list(os.walk(faults.run_folder().resolve())):
            for name in names:
                os.unlink(os.path.join(folder, name))
            for name, inode in self._names.get(folder, {}).items():
                Path(folder, name).write_bytes(self._contents.get(inode, b""))
        kill(rank)


def nothing_synced() -> None:
    """As of a program that forgets to sync, or a disk that lies."""
    os.fsync = lambda descriptor: None


def power_cuts(bench: faults.Bench, seed: int, number: int) -> Iterator[Case]:
    """The power fails around calls drawn by `seed`."""
    bench.undisturbed(1)
    draw = random.Random(seed)
    functions = [TRAIN_STEP, "torch.save", "os.fsync", "os.link", "os.replace"]
    for count in range(number):
        function = functions[count % len(functions)]
        yield power_cut(function, draw.randint(1, bench.calls[function]), draw.random() < 0.5)


def power_cut(
    function: str, call: int, after: bool, *, also: Callable[[], None] | None = None
) -> Case:
    """The power fails before or after one call; `also` is done before the run."""
    disk = Disk()

    def before() -> None:
        disk.start()
        if also is not None:
            also()

    return Case(
        "power cut",
        f"{'after' if after else 'before'} call {call} of {function}",
        before=before,
        hook=(function, call, after, disk.cut),
        statuses=frozenset({KILLED}),
        loses=CHECKPOINT_EVERY,
    )


def consoles() -> Iterator[Case]:
    """The console is lost in mid-run."""
    for which, act in (("its reader has gone", _no_reader), ("its disk is full", _full)):
        for workers in (0, 2):
            yield Case(
                "lost console",
                f"{which}, {workers} loader workers",
                given=(f"data.workers={workers}",),
                hook=(TRAIN_STEP, 2, False, act),
            )


def _no_reader(rank: int, *_: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)


def _full(rank: int, *_: Any) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


def hard_links() -> Iterator[Case]:
    """A file system without hard links; its second checkpoint must be whole too."""
    for number in (errno.EPERM, errno.EOPNOTSUPP):
        yield Case(
            "no hard links",
            f"{errno.errorcode[number]}, and the newest checkpoint is lost",
            before=functools.partial(_without_links, number),
            hook=(TRAIN_STEP, 8, False, kill),
            statuses=frozenset({KILLED}),
            heal=lambda folder: (folder / "checkpoints" / checkpoint.LAST).unlink(),
            resumed_says="last.pt: missing; continuing from previous.pt at step 3",
            loses=2 * CHECKPOINT_EVERY,
        )


def _without_links(number: int) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    os.link = link


def files(bench: faults.Bench) -> Iterator[Case]:
    """Files of the run folder that somebody deleted, exchanged or added."""
    killed: dict[str, Any] = {
        "hook": (TRAIN_STEP, 8, False, kill),
        "statuses": frozenset({KILLED}),
        "loses": CHECKPOINT_EVERY,
    }
    for names, refusal in (
        (("config.yaml",), r"config\.yaml: missing"),
        (("environment.json",), r"environment\.json: cannot be read"),
        (("metrics.jsonl",), r"metrics\.jsonl: missing, but the checkpoint"),
        (("checkpoints/last.pt", "checkpoints/previous.pt"), r"holds no last\.pt or previous\.pt"),
    ):
        spoil = functools.partial(_hidden, names, bench.root / "hidden")
        yield Case("deleted file", " and ".join(names), spoil=spoil, refusal=refusal, **killed)
    for name in ("summary.json", "tensorboard"):
        yield Case("deleted file", name, heal=functools.partial(_delete, name), **killed)
    another = functools.partial(_another_runs, bench)
    refusal = "checkpoint is of another run .bn_baseline, seed 1"
    yield Case("foreign file", "another run's last.pt", spoil=another, refusal=refusal, **killed)
    yield Case(
        "foreign file",
        "best.pt in the place of last.pt",
        **{**killed, "loses": 2 * CHECKPOINT_EVERY},
        heal=lambda folder: shutil.copy(
            folder / "checkpoints" / "best.pt", folder / "checkpoints" / "last.pt"
        ),
        resumed_says="last.pt: holds no optimizer.*continuing from previous.pt at step 3",
    )
    spoil = functools.partial(_linked_out, bench.root)
    refusal = "a link that leads out of the run folder"
    yield Case("foreign file", "a link that leads out", spoil=spoil, refusal=refusal, **killed)


def _hidden(names: tuple[str, ...], place: Path, folder: Path) -> Callable[[], None]:
    place.mkdir(exist_ok=True)
    moved = [(folder / name, place / Path(name).name) for name in names]
    for here, there in moved:
        shutil.move(here, there)

    def undo() -> None:
        for here, there in moved:
            here.unlink(missing_ok=True)
            shutil.move(there, here)

    return undo


def _delete(name: str, folder: Path) -> None:
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _another_runs(bench: faults.Bench, folder: Path) -> Callable[[], None]:
    other = bench.root / "another"
    if not other.exists():
        started = bench.start(other, "run.seed=1", "train.steps=4")
        assert set(started.wait()) == {0}, started.said()
    undo = _hidden(("checkpoints/last.pt",), bench.root / "hidden", folder)
    shutil.copy(other / "checkpoints" / "last.pt", folder / "checkpoints")
    return undo


def _linked_out(place: Path, folder: Path) -> Callable[[], None]:
    (folder / "notes").symlink_to(place)
    return (folder / "notes").unlink
