"""A disk that loses its power, fills up or turns read-only under a run."""

import builtins
import errno
import functools
import io
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults import IN_STEP_8, KILLED, STEP, Act, Fault, kill, run_folder
from faults_bench import Bench, moments, where


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
            setattr(os, name, functools.partial(self._sync, getattr(os, name)))

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

    def cut(self, rank: int, *_: Any) -> None:
        """Leave of the run folder what survives, and end."""
        folder = run_folder()
        tree = {Path(path): _names(Path(path)) for path, _, _ in os.walk(folder)}
        tree[folder.parent] = {folder.name: folder.stat().st_ino}
        files = [path / name for path, names in tree.items() for name in names]
        latest = {path.stat().st_ino: path.read_bytes() for path in files if path.is_file()}
        shutil.rmtree(folder)
        self._rebuild(folder.parent, tree, latest, {folder.name})
        kill(rank)

    def _rebuild(
        self,
        folder: Path,
        tree: dict[Path, dict[str, int]],
        latest: dict[int, bytes],
        only: set[str] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        synced, now = self._names.get(folder, {}), tree.get(folder, {})
        for name in sorted(only or synced.keys() | now.keys()):
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


def nothing_synced() -> None:
    """As of a program that forgets to sync, or a disk that lies."""
    os.fsync = os.fdatasync = lambda descriptor: None


def log_buffered_until_synced() -> None:
    """As of a program that keeps its records in memory until a checkpoint."""
    opened, synced = io.open, os.fsync
    logs: list[Any] = []

    def buffered(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        if "a" not in mode or not str(file).endswith("metrics.jsonl"):
            return opened(file, mode, buffering, *more, **named)
        logs.append(opened(file, mode, 1 << 20))
        return logs[-1]

    def sync(descriptor: int) -> None:
        for log in logs:
            if not log.closed and log.fileno() == descriptor:
                log.flush()
        synced(descriptor)

    io.open = builtins.open = buffered
    os.fsync = sync


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 8 MiB at `folder`; False where this user must not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=False)


def fill(left: int) -> Act:
    """Leave `left` bytes of the disk on which the run folder lies."""

    def act(rank: int, *_: Any) -> None:
        root = run_folder().parent
        free = shutil.disk_usage(root).free
        (root / "ballast").write_bytes(b"\0" * max(0, free - left))

    return act


def make_room(folder: Path) -> None:
    """Undo `fill`."""
    (folder.parent / "ballast").unlink(missing_ok=True)


def fail(number: int) -> Act:
    """The call fails with an error number."""

    def act(rank: int, *_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return act


def set_writable(folder: Path, writable: bool) -> bool:
    """Turn a run folder read-only or back; False where this user, as root, cannot."""
    done = []
    for path in (folder, folder / "checkpoints"):
        if os.geteuid() != 0:
            path.chmod(0o755 if writable else 0o555)
        elif path.exists():
            command = ["chattr", "-i" if writable else "+i", str(path)]
            done.append(subprocess.run(command, check=False, capture_output=True).returncode == 0)
    return all(done)


NO_SUCH_DISK = "this user may not mount a small disk"


def power_cuts(bench: Bench, seed: int, number: int) -> Iterator[Fault]:
    """The power fails around calls drawn by `seed`; every second time the disk is lucky."""
    draw = random.Random(seed)
    functions = ["torch.save", STEP, "os.fsync", "os.link", "os.replace"]
    for count, moment in enumerate(moments(bench, draw, functions, number)):
        yield power_cut(moment, luck=0.5 * (count % 2), seed=seed + count)


def power_cut(
    at: tuple[str, int, bool],
    *,
    luck: float = 0.0,
    seed: int = 0,
    also: Callable[[], None] | None = None,
) -> Fault:
    """The power fails at `at`; `also` is done before the run."""
    disk = Disk(luck, seed)

    def before() -> None:
        disk.start()
        if also is not None:
            also()

    kept = "some of what was not synced survives" if luck else "nothing unsynced survives"
    return Fault(
        "power cut",
        f"{where(*at)}, {kept}",
        before=before,
        at=at,
        act=disk.cut,
        statuses=frozenset({KILLED}),
        unsynced_lost=True,
    )


def no_hard_links() -> Iterator[Fault]:
    """A file system without hard links; its second checkpoint must be whole too."""
    for number in (errno.EPERM, errno.EOPNOTSUPP):
        yield Fault(
            "no hard links",
            f"{errno.errorcode[number]}, and the newest checkpoint is lost",
            before=functools.partial(_without_links, number),
            **IN_STEP_8,
            heal=lambda folder: (folder / "checkpoints" / "last.pt").unlink(),
            resumed_says=r"last\.pt: missing; continuing from previous\.pt at step 3",
            older=1,
        )


def _without_links(number: int) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    os.link = link


def disks(mounted: bool) -> Iterator[Fault]:
    """A disk that is full, calls that fail for it, and a folder that turns read-only."""
    refused = "could not be written|cannot be (written|created)"
    for left, at in (
        (65_536, ("torch.save", 3, False)),
        (300_000, ("torch.save", 4, False)),
        (0, (STEP, 8, False)),
        (0, ("torch.save", 1, False)),
    ):
        yield Fault(
            "full disk",
            f"{left} bytes left {where(*at)}",
            at=at,
            act=fill(left),
            statuses=frozenset({2}),
            says=refused,
            heal=make_room,
            impossible="" if mounted else NO_SUCH_DISK,
        )
    for number, at in (
        (errno.ENOSPC, ("os.fsync", 15, False)),
        (errno.ENOSPC, ("os.replace", 12, False)),
        (errno.EDQUOT, ("os.replace", 3, False)),
        (errno.EIO, ("os.fsync", 16, False)),
    ):
        yield Fault(
            "call that fails",
            f"{errno.errorcode[number]} {where(*at)}",
            at=at,
            act=fail(number),
            statuses=frozenset({2}),
            says=refused,
        )
    for at in ("torch.save", 3, False), (STEP, 8, False):
        yield Fault(
            "read-only folder",
            where(*at),
            at=at,
            act=lambda rank, *_: set_writable(run_folder(), False),
            statuses=frozenset({2}),
            says=refused,
            heal=functools.partial(set_writable, writable=True),
            impossible=_nothing_is_readonly(),
        )


@functools.cache
def _nothing_is_readonly() -> str:
    if os.geteuid() != 0:
        return ""
    folder = Path("/dev/shm" if Path("/dev/shm").is_dir() else ".", f"readonly{os.getpid()}")
    folder.mkdir()
    try:
        possible = set_writable(folder, False)
    except OSError:
        possible = False
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=False, capture_output=True)
        folder.rmdir()
    return "" if possible else "as root without chattr nothing is read-only"
