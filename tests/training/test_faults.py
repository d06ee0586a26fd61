"""A run that something happened to, once continued, is the run that nothing happened to.

A sample of the faults that `scripts/reliability.py` tries; and what must not pass does not.
"""

from collections.abc import Iterator

import faults
import faults_catalog as catalog
import faults_disk
import pytest
from faults import KILLED, STEP, STEPS, Fault
from faults_bench import Bench, attempt

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("faults")
    with faults_disk.small_disk(root / "disk"):
        yield Bench(root)


CHOSEN = (
    ("kill -9", "in a save"),
    ("power cut", "before call"),
    ("signal", "SIGHUP in a save"),
    ("no hard links", "EPERM"),
    ("full disk", "65536 bytes left"),
    ("read-only folder", "before call 8"),
    ("lost console", "its reader has gone, 2"),
    ("deleted file", "metrics.jsonl"),
    ("foreign file", "another run's checkpoints/last.pt"),
    ("damaged file", "flipped bytes in last.pt"),
    ("two starts", "the second in step 5, run.resume=auto"),
    ("killed loader worker", "before the update"),
    ("rank of two", "kill -9 of rank 0"),
    ("torchrun", "kill -9 of rank 1"),
)
"""Kinds, and how the detail begins of the one that is tried here."""


@pytest.mark.parametrize(("kind", "detail"), CHOSEN)
def test_it_survives(bench: Bench, kind: str, detail: str) -> None:
    every = catalog.faults(bench, seed=3, mounted=(bench.root / "disk").is_mount())
    tried = attempt(
        bench,
        next(fault for fault in every if fault.kind == kind and fault.detail.startswith(detail)),
    )
    if tried.skipped:
        pytest.skip(tried.skipped)
    assert tried.problems == ()


def test_without_fsync_a_power_cut_loses_more_than_is_allowed(bench: Bench) -> None:
    fault = faults_disk.power_cut((STEP, 8, False), also=faults_disk.nothing_synced)
    assert "7 steps lost, 1 allowed" in attempt(bench, fault).problems


def test_a_log_that_is_buffered_until_checkpoints_is_noticed(bench: Bench) -> None:
    fault = Fault(
        "kill -9",
        "in the last step",
        before=faults_disk.log_buffered_until_synced,
        at=(STEP, STEPS, False),
        act=faults.kill,
        statuses=frozenset({KILLED}),
    )
    assert attempt(bench, fault).problems == ("11 steps trained, metrics.jsonl ends at 9",)


def test_a_survivor_that_hangs_did_not_survive(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.undisturbed()
    monkeypatch.setattr(bench, "seconds", 3.0)
    # The harness kills it in the end, which is what another fault's victim ends with.
    fault = Fault(
        "hangs", "in a step", at=(STEP, 2, False), act=faults.hang, statuses=frozenset({KILLED})
    )
    assert any("did not end by itself" in problem for problem in attempt(bench, fault).problems)
