"""A disk that loses its power, fills up or turns read-only under a run."""

import ctypes
import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from faults_bench import KILLED, STEP, Bench, Fault, Moment, Run, kill, moments


class Disk:
    """What of a run folder a power cut leaves.

    Sure to survive are the bytes that a file had when it was last synced, under the names that its
    folder had when that was last synced, where the folder itself can be found so. Of the rest, each
    name and each file's later bytes survive with the probability `luck`: a disk writes what was not
    synced in an order of its own, or never.

    Args:
        luck: 0 drops all that was not synced.
        seed: of what survives.
    """

    def __init__(self, luck: float, seed: int) -> None:
        self._luck = luck
        self._draw = random.Random(seed)
        self._synced: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._held: list[int] = []

    def start(self) -> None:
        """Note what is synced from here on in this process."""
        for name in ("fsync", "fdatasync"):
            setattr(os, name, partial(self._sync, getattr(os, name)))

    def _sync(self, sync: Callable[[int], None], descriptor: int) -> None:
        sync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._names[path] = names = _names(path)
            paths = [path / name for name in names]
        else:
            self._synced[os.fstat(descriptor).st_ino] = path.read_bytes()
            paths = [path]
        # Held open, or their numbers would be given to other files.
        self._held += [os.open(path, os.O_RDONLY) for path in paths]

    def cut(self, run: Run, *_: Any) -> None:
        """Leave of the run folder what survives, and end."""
        folder = run.folder
        tree = {Path(path): _names(Path(path)) for path, _, _ in os.walk(folder)}
        files = (path for path in folder.rglob("*") if path.is_file())
        latest = {path.stat().st_ino: path.read_bytes() for path in files}
        shutil.rmtree(folder)
        if folder.name in self._names.get(folder.parent, {}) or self._survives():
            self._rebuild(folder, tree, latest)
        kill()

    def _rebuild(
        self, folder: Path, tree: dict[Path, dict[str, int]], latest: dict[int, bytes]
    ) -> None:
        folder.mkdir()
        synced, now = self._names.get(folder, {}), tree[folder]
        for name in sorted(synced.keys() | now.keys()):
            inode = (now if self._survives() else synced).get(name)
            path = folder / name
            if inode is None:
                continue
            if path in tree:
                self._rebuild(path, tree, latest)
            else:
                path.write_bytes(self._left(inode, latest))

    def _left(self, inode: int, latest: dict[int, bytes]) -> bytes:
        sure = self._synced.get(inode, b"")
        later = latest.get(inode, sure)
        if self._survives() and later.startswith(sure):
            later = later[: self._draw.randint(len(sure), len(later))]
            latest[inode] = self._synced[inode] = later  # the same under all its names
            return later
        return sure

    def _survives(self) -> bool:
        return self._draw.random() < self._luck


def _names(folder: Path) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}


def power_cuts(bench: Bench, seed: int, number: int) -> Iterator[Fault]:
    """The power fails around calls drawn by `seed`; every second time the disk is lucky."""
    draw = random.Random(seed)
    functions = ["torch.save", STEP, "os.fsync", "os.link", "os.replace"]
    for count, at in enumerate(moments(bench, draw, functions, number)):
        yield power_cut(at, 0.5 * (count % 2), seed + count)


def power_cut(
    at: Moment, luck: float = 0.0, seed: int = 0, also: Callable[[], object] = lambda: None
) -> Fault:
    """The power fails at `at`; `also` is done before the run."""
    disk = Disk(luck, seed)

    def before() -> None:
        disk.start()
        also()

    kept = "some of what was not synced survives" if luck else "nothing unsynced survives"
    return Fault(
        "power cut",
        f"{at}, {kept}",
        at,
        disk.cut,
        before=before,
        statuses=(KILLED,),
        unsynced_lost=True,
    )


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 8 MiB at `folder`, where this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    subprocess.run(command, check=False, capture_output=True)
    try:
        yield
    finally:
        if folder.is_mount():
            subprocess.run(["umount", str(folder)], check=False)


def fail(number: int, *_: Any, **__: Any) -> None:
    """As a call that fails with an error number."""
    raise OSError(number, os.strerror(number))


def no_hard_links() -> Iterator[Fault]:
    """A file system without hard links; its second checkpoint must be whole too."""
    for number in (errno.EPERM, errno.EOPNOTSUPP):
        yield Fault(
            "no hard links",
            f"{errno.errorcode[number]}, and the newest checkpoint is lost",
            Moment(STEP, 8),
            kill,
            before=partial(setattr, os, "link", partial(fail, number)),
            statuses=(KILLED,),
            between=lambda folder: (folder / "checkpoints" / "last.pt").unlink(),
            resumed_says=r"last\.pt: missing; continuing from previous\.pt at step 3",
            older=1,
        )


def disks() -> Iterator[Fault]:
    """A disk that is full, calls that fail for it, and a folder that turns read-only."""
    refused = "could not be written|cannot be (written|created)"
    ended: dict[str, Any] = {"statuses": (2,), "says": refused}
    for left, at in (
        (65_536, Moment("torch.save", 3)),
        (300_000, Moment("torch.save", 4)),
        (0, Moment(STEP, 8)),
        (0, Moment("torch.save", 1)),
    ):
        yield Fault(
            "full disk",
            f"{left} bytes left {at}",
            at,
            partial(_fill, left),
            on_small_disk=True,
            between=_make_room,
            **ended,
        )
    for number, at in (
        (errno.ENOSPC, Moment("os.fsync", 15)),
        (errno.ENOSPC, Moment("os.replace", 12)),
        (errno.EDQUOT, Moment("os.replace", 3)),
        (errno.EIO, Moment("os.fsync", 16)),
    ):
        act = partial(fail, number)
        yield Fault("call that fails", f"{errno.errorcode[number]} {at}", at, act, **ended)
    for at in Moment("torch.save", 3), Moment(STEP, 8):
        yield Fault(
            "read-only folder",
            str(at),
            at,
            lambda run, *_: _set_mode(0o555, run.folder),
            before=_obey_permissions,
            between=partial(_set_mode, 0o755),
            **ended,
        )


def _fill(left: int, run: Run, *_: Any) -> None:
    """Leave `left` bytes of the disk on which the run folder lies."""
    disk = run.folder.parent
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(max(0, free - left)))


def _make_room(folder: Path) -> None:
    (folder.parent / "ballast").unlink()


def _set_mode(mode: int, folder: Path) -> None:
    for path in (folder, folder / "checkpoints"):
        path.chmod(mode)


def _obey_permissions() -> None:
    """Have the modes of files hold for root too, who gives up CAP_DAC_OVERRIDE: capset(2)."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << 1)  # of the effective ones
    assert libc.capset(header, sets) == 0
