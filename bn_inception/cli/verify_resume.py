"""`bn-inception verify-resume`: does a killed and resumed run equal an undisturbed one, here?"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bn_inception.cli.command import Call, command
from bn_inception.errors import UserError
from bn_inception.network.checkpoint import LAST, load, weights_hash
from bn_inception.training.settings import RunConfig

KILL_AFTER = 9
"""The logged step after which the second run is killed."""
WHOLE, KILLED = "whole", "killed"


@command("verify-resume", RunConfig)
def verify_resume(call: Call[RunConfig]) -> int:
    """Train undisturbed, and again killed and resumed; the status is 1 if the runs differ.

    The undisturbed run reads images in this process, the killed one in one worker, and in two
    after the kill.
    """
    lengths = ("steps", "evaluate_every", "checkpoint_every", "log_every")
    short = [f"train.{key}={call.composed['train'][key]}" for key in lengths]
    overrides = [*short, *call.overrides]
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as name:
        root = Path(name)
        print("1 of 2: undisturbed", flush=True)
        _finish(_start(root, WHOLE, *overrides, "data.workers=0"))
        print(f"2 of 2: killed after step {KILL_AFTER}, then resumed", flush=True)
        _kill_after(_start(root, KILLED, *overrides, "data.workers=1"), root / KILLED)
        _finish(_start(root, KILLED, *overrides, "data.workers=2", "run.resume=must"))
        step = first_difference(_records(root / WHOLE), _records(root / KILLED))
        whole, killed = (
            weights_hash(load(root / run / "checkpoints" / LAST)["network"])
            for run in (WHOLE, KILLED)
        )
    if step is None and whole == killed:
        print(f"equal: weights {whole[:16]}, and every line of the record")
        return 0
    where = "in the final weights only" if step is None else f"first at step {step}"
    print(f"different, {where}: weights {whole[:16]} undisturbed, {killed[:16]} resumed")
    return 1


def first_difference(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> int | None:
    """The step of the first record that differs between two runs; None if none does."""
    nothing: dict[str, Any] = {}
    for one, other in zip_longest(first, second, fillvalue=nothing):
        # No two runs share their speed.
        if {**one, "images_per_second": None} != {**other, "images_per_second": None}:
            return min(int(record["step"]) for record in (one, other) if record)
    return None


def _start(root: Path, name: str, *overrides: str) -> subprocess.Popen[str]:
    arguments = [*overrides, f"run.root={root}", f"run.name={name}"]
    return subprocess.Popen(
        [sys.executable, "-m", "bn_inception", "train", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate()
    if process.returncode != 0:
        *_, last = said.strip().splitlines() or [f"status {process.returncode}"]
        reason = last.removeprefix("bn-inception: ")
        raise UserError(f"verify-resume: training failed: {reason}")


def _kill_after(process: subprocess.Popen[str], folder: Path) -> None:
    """Kill the run, and its workers, once it has logged KILL_AFTER steps."""
    while process.poll() is None and len(_records(folder)) < KILL_AFTER:
        time.sleep(0.002)
    if process.poll() is not None:
        _finish(process)
        raise UserError(
            f"verify-resume: the run was over before it had {KILL_AFTER} records, at which it is "
            "killed; give more steps, such as train.steps=24 train.log_every=1"
        )
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _records(folder: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`, without a last line that is still being written."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]
