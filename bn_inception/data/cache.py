"""A folder of files fetched from elsewhere, bounded in bytes, shared by the processes of a machine.

What lies in it:

- `NAME`: a whole file. Names hold a checksum, so that a name stands for one content for ever.
- `NAME.<bytes>.part`: a file in the making. It counts with the bytes it will have, so that the
  files and the downloads together never exceed the bound.
- `locks/NAME`: locked by the process that fetches the file; all others wait for it.
- `plans/*`: which files a process needs, and how soon. Locked while that process lives.
- `lock`: held for the milliseconds in which room is made.

All locks are the kernel's (flock) and end with their process: whatever is killed, the next one
finds parts and plans without an owner and removes them. Hence a local disk: flock is not reliable
between machines.
"""

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bn_inception.errors import UserError

_PART = ".part"
_PATIENCE_SECONDS = 60.0
"""How long a read waits for room where nothing promises any: plans lag behind by a second."""
_RETRY_SECONDS = 0.1
_UNPLANNED = 1 << 60  # the rank of a file that no living process needs

Write = Callable[[str], None]
"""Writes a file to the path it is given, whole and verified, or raises."""


class Outcome(Enum):
    """What became of the wish to have a file in the cache."""

    here = "here"
    busy = "another process fetches it"
    full = "what lies in the cache is needed sooner"
    waiting = "full, but a download will end, and may make room"


@dataclass(frozen=True)
class FileCache:
    """The folder; see the module. Without state: cheap to pickle, safe in forked processes.

    Attributes:
        folder: on a local disk; made on first use.
        limit: bytes that its files may have together.
    """

    folder: str
    limit: int

    def path(self, name: str) -> str:
        """Where a file of this name lies, if it does."""
        return os.path.join(self.folder, name)

    def names(self) -> set[str]:
        """What lies in the folder."""
        try:
            return set(os.listdir(self.folder))
        except FileNotFoundError:
            return set()

    def open(self) -> None:
        """Make the folder, and remove what killed processes have left in it.

        Raises:
            UserError: it cannot be written.
        """
        with self._usable():
            for folder in ("locks", "plans"):
                os.makedirs(os.path.join(self.folder, folder), exist_ok=True)
            with self._locked(self.path("lock")):
                self._files()
                self._ranks()

    def obtain(self, name: str, size: int, write: Write) -> None:
        """Have a file here now; another process that fetches it is waited for.

        Args:
            name: of the file.
            size: its bytes.
            write: fetches it.

        Raises:
            UserError: from `write`; no room; the folder cannot be written.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            outcome = self.fetch(name, size, 0, write, wait=True)
            if outcome is Outcome.here:
                return
            if outcome is Outcome.waiting:
                until = time.monotonic() + _PATIENCE_SECONDS
            elif time.monotonic() > until:
                raise UserError(
                    f"data.cache_gib: {self.folder} has no room for {name} ({size:,} bytes of "
                    f"{self.limit:,}): all that lies there is being read, also by other runs; "
                    "raise data.cache_gib, or give this run a data.cache of its own"
                )
            time.sleep(_RETRY_SECONDS)

    def fetch(self, name: str, size: int, rank: int, write: Write, *, wait: bool) -> Outcome:
        """Have a file here if there is room for one that is needed so soon.

        Args:
            name: of the file.
            size: its bytes; 0 does not count them.
            rank: how soon it is needed, 0 first: only files of higher rank make room for it.
            write: fetches it.
            wait: wait for another process that fetches it.

        Raises:
            UserError: from `write`; the folder cannot be written.
        """
        path = self.path(name)
        if os.path.exists(path):
            return Outcome.here
        with self._usable(), self._locked(self.path(f"locks/{name}"), wait=wait) as claimed:
            if not claimed:
                return Outcome.busy
            if os.path.exists(path):
                return Outcome.here
            part = f"{path}.{size}{_PART}"
            with suppress(FileNotFoundError):
                os.unlink(part)  # of a killed process: it would count as a download under way
            room = self._reserve(part, size, rank)
            if room is not Outcome.here:
                return room
            try:
                write(part)
                _sync(part)
                # Under the lock: who counts files meanwhile would count both names, or neither.
                with self._locked(self.path("lock")):
                    os.replace(part, path)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(part)
        return Outcome.here

    def plan(self) -> "Plan":
        """Where this process says what it needs; nothing yet."""
        with self._usable(), self._locked(self.path("lock")):
            path = self.path(f"plans/{os.getpid()}-{uuid.uuid4().hex[:8]}")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return Plan(self, descriptor)

    def write_plan(self, descriptor: int, ranks: Mapping[str, int]) -> None:
        """Replace the content of a plan."""
        text = json.dumps(ranks).encode()
        with self._usable(), self._locked(self.path("lock")):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)

    def _reserve(self, part: str, size: int, rank: int) -> Outcome:
        """Create an empty `part` that counts as `size` bytes; `here` where that was possible."""
        with self._locked(self.path("lock")):
            if size:
                used, files, downloads = self._files()
                ranks = self._ranks()
                # Least needed first; of those that nobody needs, the one that was fetched first.
                order = sorted(
                    (-ranks.get(name, _UNPLANNED), age, name, its_size)
                    for name, (age, its_size) in files.items()
                    if ranks.get(name, _UNPLANNED) > rank
                )
                excess = used + size - self.limit
                if excess > sum(its_size for *_, its_size in order):
                    return Outcome.waiting if downloads else Outcome.full
                for *_, name, its_size in order:
                    if excess <= 0:
                        break
                    os.unlink(self.path(name))
                    excess -= its_size
            Path(part).touch()
        return Outcome.here

    def _files(self) -> tuple[int, dict[str, tuple[float, int]], int]:
        """Count the files, and remove parts without an owner; under the lock.

        Returns:
            Bytes of all that counts, (age, bytes) of the whole files that do, and the number of
            downloads under way.
        """
        used, downloads = 0, 0
        files: dict[str, tuple[float, int]] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(_PART):
                    name, size = entry.name.removesuffix(_PART).rsplit(".", 1)
                    with self._locked(self.path(f"locks/{name}"), wait=False) as abandoned:
                        if abandoned:
                            os.unlink(entry.path)
                            continue
                    used += int(size)
                    downloads += 1
                elif entry.name.endswith(".tar"):
                    status = entry.stat()
                    files[entry.name] = (status.st_mtime, status.st_size)
                    used += status.st_size
        return used, files, downloads

    def _ranks(self) -> dict[str, int]:
        """How soon each file is needed by any living process; under the lock."""
        ranks: dict[str, int] = {}
        with os.scandir(self.path("plans")) as entries:
            for entry in entries:
                with self._locked(entry.path, wait=False) as abandoned:
                    if abandoned:
                        os.unlink(entry.path)
                        continue
                text = Path(entry.path).read_bytes()
                for name, rank in (json.loads(text) if text else {}).items():
                    ranks[name] = min(rank, ranks.get(name, rank))
        return ranks

    @contextmanager
    def _locked(self, path: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock on a file; whether it was got, which without `wait` it may not be."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise UserError(
                f"data.cache: {self.folder} cannot be written ({error.strerror or error}); "
                + ("free space there, or lower data.cache_gib" if full else "give another folder")
            ) from error


class Plan:
    """What one process needs of a cache; void once it is closed, or the process ends.

    Args:
        cache: of which.
        descriptor: of the plan's file, locked.
    """

    def __init__(self, cache: FileCache, descriptor: int) -> None:
        self._cache = cache
        self._descriptor: int | None = descriptor

    def write(self, ranks: Mapping[str, int]) -> None:
        """Say what is needed: by file name, how soon; files of rank 0 are not removed."""
        assert self._descriptor is not None
        self._cache.write_plan(self._descriptor, ranks)

    def close(self) -> None:
        """Need nothing any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


def _sync(path: str) -> None:
    # After a power failure a name without its content would pass for a whole file.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
