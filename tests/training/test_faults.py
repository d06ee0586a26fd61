"""A run that something happened to, once continued, is the run that nothing happened to.

Some of the faults that `scripts/reliability.py` tries, for the time that a test suite has.
"""

from collections.abc import Iterator
from itertools import chain

import faults
import pytest

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults.Bench]:
    with faults.Bench(tmp_path_factory.mktemp("faults")) as bench:
        yield bench


def check(bench: faults.Bench, case: faults.Case) -> None:
    tried = bench.attempt(case)
    if tried.skipped:
        pytest.skip(tried.skipped)
    assert tried.problems == ()


def test_kill_9_by_the_clock(bench: faults.Bench) -> None:
    for case in faults.kills(bench, 3, by_time=1, by_place=0):
        check(bench, case)


def test_kill_9_around_calls(bench: faults.Bench) -> None:
    places = list(faults.kills(bench, 3, by_time=0, by_place=10))
    for case in places[4::2]:  # in the evaluation, before, in and after the save
        check(bench, case)


CHOSEN = {
    "killed loader worker": ("in mid-update, 2 of them",),
    "full disk": ("before the third save",),
    "read-only folder": ("in a step",),
    "flipped bytes in the newest checkpoint": ("number 1",),
    "NaN in the data": ("rank 0 of 1",),
    "unreadable image": ("on rank 1 of 2",),
    "rank that is stopped": ("rank 1 of 2",),
    "signal to the run": ("SIGUSR1 before the first step",),
    "kill -9 of a rank under torchrun --max-restarts=2": (faults.KILL_ONCE,),
}


@pytest.mark.parametrize("kind", CHOSEN)
def test_it_survives(bench: faults.Bench, kind: str) -> None:
    every = chain(faults.workers(), faults.disks(bench), faults.damage(1, flipped=1, cut=0),
                  faults.data(), faults.ranks(), faults.signals(1), faults.launched())  # fmt: skip
    chosen = [case for case in every if case.kind == kind and case.detail.startswith(CHOSEN[kind])]
    assert len(chosen) == len(CHOSEN[kind])
    for case in chosen:
        check(bench, case)
