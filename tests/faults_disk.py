"""A disk that loses its power, fills up or turns read-only under a run."""

import ctypes
import errno
import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from faults_bench import KILLED, STEP, Fault, Moment, kill, moments


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

    def __init__(self, luck, seed):
        self._luck = luck
        self._draw = random.Random(seed)
        self._synced: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._held: list[int] = []

    def start(self):
        """Note what is synced from here on in this process."""
        for name in ("fsync", "fdatasync"):
            setattr(os, name, partial(self._sync, getattr(os, name)))

    def _sync(self, sync, descriptor):
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

    def cut(self, run, *_):
        """Leave of the run folder what survives, and end."""
        tree = {Path(path): _names(path) for path, _, _ in os.walk(run.folder)}
        files = (path for path in run.folder.rglob("*") if path.is_file())
        latest = {path.stat().st_ino: path.read_bytes() for path in files}
        shutil.rmtree(run.folder)
        if run.folder.name in self._names.get(run.folder.parent, {}) or self._survives():
            run.folder.mkdir()
        for folder, now in tree.items():  # from the top
            synced = self._names.get(folder, {})
            for name in sorted(synced.keys() | now.keys()) if folder.exists() else ():
                inode = (now if self._survives() else synced).get(name)
                if inode is not None and folder / name in tree:
                    (folder / name).mkdir()
                elif inode is not None:
                    (folder / name).write_bytes(self._left(inode, latest))
        kill()

    def _left(self, inode, latest):
        sure = self._synced.get(inode, b"")
        later = latest.get(inode, sure)
        if self._survives() and later.startswith(sure):
            later = later[: self._draw.randint(len(sure), len(later))]
            latest[inode] = self._synced[inode] = later  # the same under all its names
            return later
        return sure

    def _survives(self):
        return self._draw.random() < self._luck


def _names(folder):
    return {entry.name: entry.inode() for entry in os.scandir(folder)}


def power_cuts(bench, seed):
    """The power fails around calls drawn by `seed`; every second time the disk is lucky."""
    functions = ["torch.save", STEP, "os.fsync", "os.link", "os.replace"]
    for count, at in enumerate(moments(bench, random.Random(seed), functions, 12)):
        yield power_cut(at, luck=0.5 * (count % 2), seed=seed + count)


def power_cut(at, luck=0.0, seed=0):
    """The power fails at `at`."""
    disk = Disk(luck, seed)
    kept = "some of what was not synced survives" if luck else "nothing unsynced survives"
    more = {"statuses": (KILLED,), "unsynced_lost": True}
    return Fault("power cut", f"{at}, {kept}", at, disk.cut, before=disk.start, **more)


@contextmanager
def small_disk(folder):
    """A disk of 8 MiB at `folder`, where this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    subprocess.run(command, check=False, capture_output=True)
    try:
        yield
    finally:
        if folder.is_mount():
            subprocess.run(["umount", str(folder)], check=False)


def fail(number, *_, **__):
    """As a call that fails with an error number."""
    raise OSError(number, os.strerror(number))


def disks():
    """A disk that is full, calls that fail for it, and a folder that turns read-only."""
    says = "could not be written|cannot be (written|created)"
    refused = partial(Fault, statuses=(2,), says=says)
    save, step = partial(Moment, "torch.save"), partial(Moment, STEP)
    for left, at in (65_536, save(3)), (300_000, save(4)), (0, step(8)), (0, save(1)):
        detail, act = f"{left} bytes left {at}", partial(_fill, left)
        yield refused("full disk", detail, at, act, between=_make_room, on_small_disk=True)
    for number, function, call in (
        (errno.ENOSPC, "os.fsync", 15),
        (errno.ENOSPC, "os.replace", 12),
        (errno.EDQUOT, "os.replace", 3),
        (errno.EIO, "os.fsync", 16),
    ):
        at = Moment(function, call)
        detail, act = f"{errno.errorcode[number]} {at}", partial(fail, number)
        yield refused("call that fails", detail, at, act)
    readonly = partial(refused, "read-only folder", before=_obey_permissions)
    for at in save(3), step(8):
        yield readonly(str(at), at, _forbid_writing, between=_allow_writing)


def _fill(left, run, *_):
    """Leave `left` bytes of the disk on which the run folder lies."""
    disk = run.folder.parent
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(max(0, free - left)))


def _make_room(folder):
    (folder.parent / "ballast").unlink()


def _forbid_writing(run, *_):
    for folder in (run.folder, run.folder / "checkpoints"):
        folder.chmod(0o555)


def _allow_writing(folder):
    for path in (folder, folder / "checkpoints"):
        path.chmod(0o755)


def _obey_permissions():
    """Have the modes of files hold for root too, who gives up CAP_DAC_OVERRIDE: capset(2)."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << 1)  # of the effective ones
    assert libc.capset(header, sets) == 0
