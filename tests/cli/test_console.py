"""A console that goes away takes no work with it: real processes, real pipes, a real terminal."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import TINY

from bn_inception.network import checkpoint
from bn_inception.record import read_predictions

COMMAND = [sys.executable, "-m", "bn_inception"]


def train(root: Path, images: Path, *overrides: str) -> list[str]:
    given = [f"data.root={images}", f"run.root={root}", "run.name=run"]
    return [*COMMAND, "train", "recipe=bn_x5", *TINY, *given, *overrides]


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], text=True, capture_output=True, timeout=280, check=False
    )


def status(root: Path) -> str:
    return str(json.loads((root / "run" / "summary.json").read_text())["status"])


@pytest.mark.timeout(600)
def test_head_ends_neither_a_run_nor_an_evaluation(tmp_path: Path, images: Path) -> None:
    # Workers, so that what they inherit of the streams is tried as well.
    run = shlex.join(train(tmp_path, images, "data.workers=1"))
    said = shell(f"{run} 2>&1 | head -1; echo status ${{PIPESTATUS[0]}}")
    assert said.stdout.splitlines()[1:] == ["status 0"] and "step" in said.stdout
    assert status(tmp_path) == "finished"
    evaluate = shlex.join([*COMMAND, "evaluate", f"run={tmp_path / 'run'}", "machine.threads=1"])
    said = shell(f"{evaluate} 2>&1 | head -1; echo status ${{PIPESTATUS[0]}}")
    assert said.stdout.splitlines()[1:] == ["status 0"]
    assert len(read_predictions(tmp_path / "run" / "evaluation" / "single-population.npz")) == 15


@pytest.mark.timeout(600)
@pytest.mark.parametrize("streams", [">&- 2>&- <&-", ">/dev/full 2>/dev/full"])
def test_closed_and_full_streams_end_no_run(tmp_path: Path, images: Path, streams: str) -> None:
    run = shlex.join(train(tmp_path, images))
    assert shell(f"{run} {streams}").returncode == 0
    assert status(tmp_path) == "finished"
    # What was printed went into none of the files that were opened meanwhile.
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 12


def test_a_table_that_could_not_be_printed_is_no_success() -> None:
    said = shell(f"{shlex.join(COMMAND)} --help >/dev/full")
    assert said.returncode == 1
    assert "standard output could not be written (No space left on device)" in said.stderr
    said = shell(f"{shlex.join(COMMAND)} --help | true; echo ${{PIPESTATUS[0]}}")
    assert (said.stdout.strip(), said.stderr) == ("0", "")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_saves_and_ends_or_is_outlived(
    tmp_path: Path, images: Path, nohup: bool
) -> None:
    """The kernel sends SIGHUP to all of the terminal's processes, loader workers too."""
    steps = 60 if nohup else 4000
    rare = (f"train.{key}={steps}" for key in ("steps", "checkpoint_every", "evaluate_every"))
    command = train(tmp_path, images, "data.workers=1", *rare)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)  # for nohup.out
        words = ["nohup", *command] if nohup else command
        os.execvp(words[0], words)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
        time.sleep(0.01)
    os.close(terminal)
    _, ended = os.waitpid(pid, 0)
    step = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["step"]
    if nohup:
        assert os.waitstatus_to_exitcode(ended) == 0
        assert (status(tmp_path), step) == ("finished", steps)
    else:
        assert os.waitstatus_to_exitcode(ended) == 128 + signal.SIGHUP
        assert status(tmp_path) == "interrupted"
        assert 0 < step < steps
