"""The bounded cache: what makes room, who fetches, and what killed processes leave."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bn_inception.data import cache as module
from bn_inception.data.cache import FileCache, Outcome, Write
from bn_inception.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork")


def opened(folder: Path, limit: int) -> FileCache:
    cache = FileCache(str(folder), limit)
    cache.open()
    return cache


def of_bytes(size: int) -> Write:
    return lambda path: Path(path).write_bytes(bytes(size)) and None


def fetch(cache: FileCache, name: str, size: int, rank: int = 0) -> Outcome:
    return cache.fetch(f"{name}.tar", size, rank, of_bytes(size), wait=False)


def files(cache: FileCache) -> set[str]:
    return {name.removesuffix(".tar") for name in cache.names() if name.endswith((".tar", ".part"))}


def used(cache: FileCache) -> int:
    return sum(os.path.getsize(cache.path(f"{name}.tar")) for name in files(cache))


def test_what_is_needed_latest_makes_room(tmp_path: Path) -> None:
    cache = opened(tmp_path, 40)
    plan = cache.plan()
    plan.write({"kept.tar": 0, "soon.tar": 1, "late.tar": 7})
    for name in ("kept", "late", "soon", "unplanned"):
        assert fetch(cache, name, 10) is Outcome.here
    assert fetch(cache, "a", 10) is Outcome.here
    assert files(cache) == {"kept", "soon", "late", "a"}
    plan.write({"kept.tar": 0, "soon.tar": 1, "late.tar": 7, "a.tar": 3})
    assert fetch(cache, "b", 10, rank=2) is Outcome.here  # needed before a and late
    assert files(cache) == {"kept", "soon", "a", "b"}
    plan.write({"kept.tar": 0, "soon.tar": 1, "a.tar": 3, "b.tar": 2})
    assert fetch(cache, "c", 10, rank=3) is Outcome.full
    assert fetch(cache, "c", 10, rank=2) is Outcome.here
    assert files(cache) == {"kept", "soon", "b", "c"}
    # As much as it takes, and nothing where that would not be enough.
    assert fetch(cache, "d", 31, rank=0) is Outcome.full
    assert files(cache) == {"kept", "soon", "b", "c"}
    assert fetch(cache, "d", 30, rank=0) is Outcome.here
    assert files(cache) == {"kept", "d"}


def test_of_what_nobody_needs_the_first_fetched_makes_room(tmp_path: Path) -> None:
    cache = opened(tmp_path, 30)
    for age, name in enumerate(("b", "c", "a")):
        assert fetch(cache, name, 10) is Outcome.here
        os.utime(cache.path(f"{name}.tar"), (age, age))
    fetch(cache, "d", 10)
    assert files(cache) == {"c", "a", "d"}


def test_the_soonest_need_of_all_processes_counts(tmp_path: Path) -> None:
    cache = opened(tmp_path, 20)
    one, other = cache.plan(), cache.plan()
    one.write({"x.tar": 9, "y.tar": 5})
    other.write({"x.tar": 2})
    fetch(cache, "x", 10)
    fetch(cache, "y", 10)
    fetch(cache, "z", 10, rank=4)
    assert files(cache) == {"x", "z"}
    other.close()
    one.write({"x.tar": 9, "z.tar": 5})
    fetch(cache, "w", 10, rank=4)
    assert files(cache) == {"w", "z"}


@given(
    st.integers(30, 100),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 30), st.integers(0, 9)), max_size=25),
    st.dictionaries(st.integers(0, 12), st.integers(0, 9)),
)
@settings(max_examples=40)
def test_never_over_the_bound_and_never_at_the_cost_of_what_is_needed_sooner(
    limit: int, wishes: list[tuple[int, int, int]], needs: dict[int, int]
) -> None:
    with TemporaryDirectory() as folder:
        cache = opened(Path(folder), limit)
        plan = cache.plan()
        plan.write({f"{name}.tar": rank for name, rank in needs.items()})
        for name, size, rank in wishes:
            before = files(cache)
            outcome = fetch(cache, str(name), size, rank)
            after = files(cache)
            assert used(cache) <= limit
            if outcome is Outcome.full:
                assert after == before
                continue
            assert str(name) in after
            assert all(needs.get(int(gone), 99) > rank for gone in before - after)
        plan.close()


def test_a_download_counts_with_the_bytes_it_will_have(tmp_path: Path) -> None:
    cache = opened(tmp_path, 100)
    seen: list[Any] = []

    def write(path: str) -> None:
        # Nothing of its 60 bytes has come yet.
        seen.append(fetch(cache, "other", 50))
        seen.append(fetch(cache, "small", 40))
        Path(path).write_bytes(bytes(60))

    assert cache.fetch("big.tar", 60, 0, write, wait=False) is Outcome.here
    assert seen == [Outcome.waiting, Outcome.here]
    assert used(cache) == 100


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = opened(tmp_path, 100)

    def write(path: str) -> None:
        Path(path).write_bytes(bytes(30))
        raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        cache.obtain("a.tar", 60, write)
    assert files(cache) == set()
    cache.obtain("a.tar", 100, of_bytes(100))
    assert files(cache) == {"a"}


def test_no_room_for_what_is_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.2)
    cache = opened(tmp_path, 100)
    plan = cache.plan()
    plan.write({"a.tar": 0})
    fetch(cache, "a", 60)
    with pytest.raises(UserError, match=r"data\.cache_gib: .*no room for b\.tar \(50 bytes of 100"):
        cache.obtain("b.tar", 50, of_bytes(50))
    plan.close()
    cache.obtain("b.tar", 50, of_bytes(50))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache: .*cannot be written \(Not a directory\)"):
        opened(tmp_path / "file", 100)


def forked(action: Callable[[], object]) -> int:
    """Number of a child that does `action` and ends."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_processes_that_want_the_same_fetch_it_once(tmp_path: Path) -> None:
    cache = opened(tmp_path / "cache", 10**6)
    log = tmp_path / "log"
    barrier = multiprocessing.get_context("fork").Barrier(4)

    def work() -> None:
        def write(path: str) -> None:
            with open(log, "a") as file:
                file.write(f"{os.path.basename(path)}\n")
            time.sleep(0.02)
            Path(path).write_bytes(bytes(100))

        barrier.wait(60)
        for number in range(5):
            cache.obtain(f"{number}.tar", 100, write)
            assert os.path.getsize(cache.path(f"{number}.tar")) == 100

    children = [forked(work) for _ in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert sorted(log.read_text().split()) == [f"{number}.tar.100.part" for number in range(5)]


def test_processes_together_stay_under_the_bound(tmp_path: Path) -> None:
    cache = opened(tmp_path, 1000)

    def work(start: int) -> Callable[[], None]:
        def act() -> None:
            for number in range(30):
                cache.obtain(f"{(start + 3 * number) % 20}.tar", 90, of_bytes(90))

        return act

    children = [forked(work(start)) for start in range(3)]
    running = set(children)
    most = 0
    while running:
        entries = [entry.name for entry in os.scandir(tmp_path) if entry.name[0].isdigit()]
        whole = {name.split(".")[0] for name in entries}
        most = max(most, 90 * len(whole))  # a file and its part are one
        running -= {child for child in running if os.waitpid(child, os.WNOHANG)[0]}
    # A listing is no snapshot: it may hold a file that made room for another one listed later.
    assert most <= 1000 + 3 * 90
    assert used(cache) <= 1000
    assert used(cache) >= 900


def test_a_process_killed_in_a_download_leaves_nothing_broken(tmp_path: Path) -> None:
    cache = opened(tmp_path, 100)

    def write(path: str) -> None:
        Path(path).write_bytes(bytes(30))
        time.sleep(600)

    def dying() -> None:
        plan = cache.plan()
        plan.write({"b.tar": 0})
        cache.obtain("a.tar", 60, write)

    fetch(cache, "b", 40)
    child = forked(dying)
    part = tmp_path / "a.tar.60.part"
    until(lambda: part.exists() and part.stat().st_size == 30)
    # While it lives it is left alone: its part, its room and what it needs.
    cache.open()
    assert part.stat().st_size == 30
    assert cache.fetch("a.tar", 60, 0, of_bytes(60), wait=False) is Outcome.busy
    assert fetch(cache, "c", 30) is Outcome.waiting
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert part.exists()
    cache.obtain("a.tar", 60, of_bytes(60))
    assert not part.exists()
    assert files(cache) == {"a", "b"}
    fetch(cache, "c", 40)  # nobody needs b any more
    assert "c" in files(cache) and used(cache) <= 100
    cache.open()
    assert os.listdir(tmp_path / "plans") == []
