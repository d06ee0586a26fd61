"""A run that something happened to, once continued, is the run that nothing happened to.

Some of the faults that `scripts/reliability.py` tries, for the time that a test suite has.
"""

from collections.abc import Iterator
from itertools import chain

import faults
import machine_faults
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


def test_a_power_cut(bench: faults.Bench) -> None:
    for case in machine_faults.power_cuts(bench, 3, 5):
        check(bench, case)


def test_a_power_cut_is_noticed_where_nothing_is_synced(bench: faults.Bench) -> None:
    case = machine_faults.power_cut(faults.TRAIN_STEP, 8, False, also=machine_faults.nothing_synced)
    assert "7 steps lost, 3 allowed" in bench.attempt(case).problems


def test_what_does_not_end_did_not_survive(
    bench: faults.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults.Started.wait, "__defaults__", (3.0,))
    hangs = faults.Case(
        "hangs",
        "in a step",
        hook=(faults.TRAIN_STEP, 2, False, faults.hang),
        statuses=frozenset({faults.KILLED}),
    )
    tried = bench.attempt(hangs)
    assert any("did not end within" in problem for problem in tried.problems)


CHOSEN = {
    "lost console": ("its reader has gone, 2", "its disk is full, 0"),
    "no hard links": ("EPERM",),
    "deleted file": ("config.yaml", "metrics.jsonl"),
    "foreign file": ("another run's last.pt",),
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
                  faults.data(), faults.ranks(), faults.signals(1), faults.launched(),
                  machine_faults.consoles(), machine_faults.hard_links(),
                  machine_faults.files(bench))  # fmt: skip
    chosen = [case for case in every if case.kind == kind and case.detail.startswith(CHOSEN[kind])]
    assert len(chosen) == len(CHOSEN[kind])
    for case in chosen:
        check(bench, case)
