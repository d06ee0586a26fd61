"""A run that something happened to, once continued, is the run that nothing happened to.

A sample of the faults that `scripts/reliability.py` tries; and what must not pass does not.
"""

import io
import os
from dataclasses import replace
from typing import IO

import faults_catalog as catalog
import faults_disk
import pytest
from faults_bench import BACKWARD, KILLED, STEP, STEPS, Bench, Fault, Moment, attempt, kill

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    with faults_disk.small_disk(root / "disk"):
        yield Bench(root)


POWER_CUT = faults_disk.power_cut(Moment(STEP, 8))
CHOSEN = (
    ("kill -9", "in a save"),
    ("power cut", "before call 8"),
    ("signal", "SIGHUP in a save"),
    ("signal", "SIGTERM to rank 1 of two"),
    ("no hard links", "EPERM"),
    ("full disk", "65536 bytes left"),
    ("call that fails", "EIO"),
    ("read-only folder", "before call 8"),
    ("lost console", "its reader has gone, 2"),
    ("deleted file", "config.yaml"),
    ("deleted file", "metrics.jsonl"),
    ("deleted file", "checkpoints/last.pt and"),
    ("deleted file", "checkpoints/best.pt"),
    ("foreign file", "another run's checkpoints/last.pt"),
    ("foreign file", "best.pt in the place of last.pt"),
    ("damaged file", "flipped bytes in last.pt"),
    ("two starts", "the second in step 5, run.resume=auto"),
    ("killed loader worker", "before the update"),
    ("rank of two", "kill -9 of rank 0"),
    ("rank of two", "rank 1 hangs"),
    ("torchrun", "kill -9 of rank 1"),
    ("torchrun", "SIGKILL to torchrun"),
)
"""Kinds, and how the detail begins of the one that is tried here."""


@pytest.mark.parametrize(("kind", "detail"), CHOSEN)
def test_it_survives(bench, kind, detail):
    every = [POWER_CUT, *catalog.faults(bench, seed=3)]
    fault = next(f for f in every if f.kind == kind and f.detail.startswith(detail))
    tried = attempt(bench, fault)
    if tried.skipped:
        pytest.skip(tried.skipped)
    assert tried.problems == ()


def forget_to_sync():
    """As of a program that forgets, or a disk that lies: what cuts the power sees no sync."""
    assert POWER_CUT.before is not None
    POWER_CUT.before()
    os.fsync = os.fdatasync = lambda descriptor: None


def buffer_the_log():
    """As of a program that keeps its records in memory until a checkpoint."""
    opened, synced = io.open, os.fsync
    logs: dict[int, IO[bytes]] = {}

    def open_buffered(file, mode="r", *more, **named):
        if not (mode == "ab" and str(file).endswith("metrics.jsonl")):
            return opened(file, mode, *more, **named)
        log = opened(file, mode)
        logs[log.fileno()] = log
        return log

    def sync(descriptor):
        if descriptor in logs:
            logs[descriptor].flush()
        synced(descriptor)

    io.open, os.fsync = open_buffered, sync


def killed_in_step(step, act, **more):
    return Fault("", "", Moment(STEP, step), act, statuses=(KILLED, 0), **more)


def double_the_gradient(run, loss, *_):
    loss.register_hook(lambda gradient: 2 * gradient)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (replace(POWER_CUT, before=forget_to_sync), "7 steps lost, 1 allowed"),
        (
            killed_in_step(STEPS, kill, before=buffer_the_log),
            "11 steps trained, metrics.jsonl ends at 9",
        ),
        (killed_in_step(STEPS + 1, kill), "the fault never struck"),
        (Fault("", "", Moment(BACKWARD, 12), double_the_gradient), "another network in last.pt"),
    ],
    ids=[
        "without fsync",
        "a log buffered until checkpoints",
        "a fault that never strikes",
        "other weights",
    ],
)
def test_it_does_not_survive(bench, fault, problem):
    assert problem in attempt(bench, fault).problems


def test_a_survivor_that_hangs_did_not_survive(bench, monkeypatch):
    bench.undisturbed("whole1", fault=Fault("", ""))
    monkeypatch.setattr(bench, "seconds", 3.0)
    # The harness kills it in the end, which is what another fault's victim ends with.
    problems = attempt(bench, killed_in_step(2, catalog.hang)).problems
    assert any("did not end by itself" in problem for problem in problems)
