"""A console that goes away takes no work with it: real processes, real pipes, a real terminal."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import TINY, write_images

from bn_inception.network import checkpoint
from bn_inception.quoting import say
from bn_inception.record.predictions import read_predictions

COMMAND = [sys.executable, "-m", "bn_inception"]


def train(root, images, *overrides):
    given = [f"data.root={images}", f"run.root={root}", "run.name=run"]
    return [*COMMAND, "train", "recipe=bn_x5", *TINY, *given, *overrides]


def shell(line):
    return subprocess.run(
        ["bash", "-c", line], text=True, capture_output=True, timeout=280, check=False
    )


def on_a_terminal(command, folder):
    """What a command prints on a terminal, started in `folder`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvp("bash", ["bash", "-c", f"stty cols 80 rows 24 && {shlex.join(command)}"])
    said = b""
    try:
        while more := os.read(terminal, 1 << 16):
            said += more
    except OSError:  # Linux's end of a terminal
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return said.decode()


def status(root):
    return str(json.loads((root / "run" / "summary.json").read_text())["status"])


@pytest.mark.timeout(600)
def test_head_ends_neither_a_run_nor_an_evaluation(tmp_path, images):
    # Workers, so that what they inherit of the streams is tried as well.
    run = shlex.join(train(tmp_path, images, "data.workers=1"))
    said = shell(f"{run} 2>&1 | head -1; echo status ${{PIPESTATUS[0]}}")
    assert said.stdout.splitlines()[1:] == ["status 0"] and said.stdout.startswith("run  20")
    assert status(tmp_path) == "finished"
    evaluate = shlex.join([*COMMAND, "evaluate", f"run={tmp_path / 'run'}", "machine.threads=1"])
    said = shell(f"{evaluate} 2>&1 | head -1; echo status ${{PIPESTATUS[0]}}")
    assert said.stdout.splitlines()[1:] == ["status 0"]
    assert len(read_predictions(tmp_path / "run" / "evaluation" / "single-population.npz")) == 15


@pytest.mark.timeout(600)
@pytest.mark.parametrize("streams", [">&- 2>&- <&-", ">/dev/full 2>/dev/full"])
def test_closed_and_full_streams_and_no_log_end_no_run(tmp_path, images, streams):
    (tmp_path / "run" / "train.log").mkdir(parents=True)
    run = shlex.join(train(tmp_path, images))
    assert shell(f"{run} {streams}").returncode == 0
    assert status(tmp_path) == "finished"
    # What was printed went into none of the files that were opened meanwhile.
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 12


def test_a_table_that_could_not_be_printed_is_no_success():
    said = shell(f"{shlex.join(COMMAND)} --help >/dev/full")
    assert said.returncode == 1
    assert "standard output could not be written (No space left on device)" in said.stderr
    said = shell(f"{shlex.join(COMMAND)} --help | true; echo ${{PIPESTATUS[0]}}")
    assert (said.stdout.strip(), said.stderr) == ("0", "")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_saves_and_ends_or_is_outlived(tmp_path, images, nohup):
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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_said_fits_80_columns_and_stands_in_the_log(tmp_path, terminal):
    broken = write_images(tmp_path / "photos") / "train" / "n0001" / "3.JPEG"
    broken.write_bytes(b"not an image")
    name = "bn_x5-cpu-folder-seed0-dropout0.4"
    log = tmp_path / "outputs" / name / "train.log"
    given = ["data.on_error=skip", "milestones=[0.01]", f"run.name={name}"]

    def said(*overrides):
        command = train(Path("outputs"), Path("photos"), *given, *overrides)
        if terminal:
            return on_a_terminal(command, tmp_path)
        line = f"cd {shlex.quote(str(tmp_path))} && {shlex.join(command)} 2>&1"
        return shell(line).stdout

    first = said("train.steps=8")
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", first) if line.strip()]
    assert max(map(len, lines)) <= 80
    assert bool(re.search(r"%\s\|.+\| [0-8]/8 .* left", first)) == terminal
    logged = log.read_text().splitlines()
    assert [line for line in lines if "% |" not in line] == logged
    banner = "\n".join(logged[:10])
    assert banner.startswith(f"{name}  20")
    for words in (
        "CPU, 1 thread",
        "42 for training, 15 held out",
        "parameters, 3 classes",
        "8 of 8 images",
        "6,000,000 steps of 32",
        f"outputs/{name}",
        "after the first 2 steps",
        "audit    never; this names every damaged image:",
        "bn-inception audit data=folder data.root=photos",
    ):
        assert words in banner
    assert "left, going by the first 2 steps" in logged[10]
    evaluations = [line for line in logged if "  top-1 " in line]
    form = r"…?\S+  step [48]/8  loss \d\.\d{3}  top-1 \d+\.\d\d%  (\(best\)|best \S+%)(  met 1%)?"
    assert len(evaluations) == 2 and all(re.fullmatch(form, line) for line in evaluations)
    # Two runs side by side are told apart.
    assert all(line.startswith("bn_x5") for line in evaluations)
    assert sum("met 1%" in line for line in evaluations) == 1
    ended = " ".join(" ".join(logged[logged.index(evaluations[-1]) + 1 :]).split())
    assert f"{name}: finished, best top-1 " in ended
    assert "training images that cannot be read and were replaced: 1;" in ended
    assert ended.endswith("bn-inception audit data=folder data.root=photos")
    said("run.resume=must")
    resumed = log.read_text().splitlines()
    assert resumed[: len(logged)] == logged
    assert "  steps    12 of 8 images, 8 of them done" in resumed[len(logged) :]


def test_what_is_said_moves_no_cursor(capsys):
    say("a\x1b[2J\nb")
    assert capsys.readouterr().err == "a\\x1b[2J\\nb\n"


def test_the_log_says_why_a_run_ended(tmp_path):
    images = write_images(tmp_path / "photos")
    (images / "train" / "n0001" / "3.JPEG").write_bytes(b"not an image")
    ended = shell(shlex.join(train(tmp_path, images)))
    assert ended.returncode == 2
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.splitlines()[-1] == ended.stderr.splitlines()[-1]
    assert "n0001/3.JPEG cannot be read" in log
