"""`bn-inception verify-resume`: does a killed and resumed run equal an undisturbed one, here?"""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bn_inception.cli.command import Call, command
from bn_inception.errors import UserError
from bn_inception.network import Normalization
from bn_inception.network.checkpoint import LAST, load, weights_hash
from bn_inception.training.distributed import World
from bn_inception.training.local_batch import local_batch
from bn_inception.training.machine import choose_device
from bn_inception.training.settings import RunConfig

KILL_AFTER = 9
"""The logged step after which the second run is killed."""
RUN = "run"
TOLERANCE = 1e-4
"""Of the first loss of a run that two processes took up: that of the restored state on the same
images. Float32's rounding differs by some 1e-7, and no later loss can be compared: deep networks
with BN multiply a difference so fast that correct runs are per cents apart in three updates."""


@command("verify-resume", RunConfig)
def verify_resume(call: Call[RunConfig]) -> int:
    """Train undisturbed, and again killed and resumed; the status is 1 if the runs differ.

    The undisturbed run reads images in this process, the killed one in one worker, and in two
    after the kill: these must be equal bit for bit. Where the mini-batch can be divided, a copy of
    the killed run is also resumed by two processes. Their sums of floats are ordered otherwise, so
    its first loss must be equal within `TOLERANCE`.
    """
    undivided = _cannot_divide(call.config)
    if undivided:
        print(f"by two processes: not tried, {undivided}")
    runs = 2 if undivided else 3
    lengths = ("steps", "evaluate_every", "checkpoint_every", "log_every")
    short = [f"train.{key}={call.composed['train'][key]}" for key in lengths]
    given = [*short, *call.overrides]
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        whole, killed, divided = (Path(folder) / name for name in ("whole", "killed", "divided"))
        print(f"1 of {runs}: undisturbed", flush=True)
        _finish(_start(whole, *given, "data.workers=0"))
        print(f"2 of {runs}: killed after step {KILL_AFTER}, then resumed", flush=True)
        _kill_after(_start(killed, *given, "data.workers=1"), killed)
        if not undivided:
            shutil.copytree(killed, divided)
        _finish(_start(killed, *given, "data.workers=2", "run.resume=must"))
        if not undivided:
            print("3 of 3: killed, then resumed by two processes", flush=True)
            _finish(_start(divided, *given, "data.workers=0", "run.resume=must", processes=2))
        equal = same(_records(whole), _records(killed), _weights(whole), _weights(killed))
        close = undivided is not None or alike(_records(whole), _records(divided))
        return 0 if equal and close else 1


Records = list[dict[str, Any]]


def same(whole: Records, killed: Records, weights: str, resumed: str) -> bool:
    """Say whether a killed and resumed run has the undisturbed one's records and weights."""
    step, _ = first_difference(whole, killed)
    if step is None and weights == resumed:
        print(f"equal: weights {weights[:16]}, and every line of the record")
        return True
    where = "in the final weights only" if step is None else f"first at step {step}"
    print(f"different, {where}: weights {weights[:16]} undisturbed, {resumed[:16]} resumed")
    return False


def alike(whole: Records, divided: Records) -> bool:
    """Say whether two processes took up a run with a loss within `TOLERANCE`."""
    losses = ([each for each in run if each["kind"] == "train"] for run in (whole, divided))
    _, apart = first_difference(*losses)
    judged = "equal within float tolerance" if apart <= TOLERANCE else "different"
    print(
        f"by two processes: {judged}, the first loss after resuming differs by {apart:.1e} of "
        f"its value (allowed {TOLERANCE:.0e}: sums are ordered otherwise)"
    )
    return apart <= TOLERANCE


def _cannot_divide(config: RunConfig) -> str | None:
    """Why two processes cannot take up this run; None if they can."""
    try:
        choose_device(config.machine.device, World(0, 2, 0, 2))
        normalized = config.network.normalization is not Normalization.none
        part = local_batch(config.batch, 2, normalized=normalized)
    except UserError as error:
        return str(error)
    if config.network.dropout:
        return "dropout draws for each process by itself"
    if part.group not in (None, config.batch.mini_batch):
        return "batch.synchronized=false makes other groups of Batch Normalization"
    return None


def first_difference(first: Records, second: Records) -> tuple[int | None, float]:
    """The step of the first record that differs between two runs, and by how much of it the loss.

    None and 0 where none does; infinity where one of the runs has no such record.
    """
    nothing: dict[str, Any] = {}
    for one, other in zip_longest(first, second, fillvalue=nothing):
        if one != other:
            step = min(int(record["step"]) for record in (one, other) if record)
            alike = one.get("step") == other.get("step") and one.get("loss") and other.get("loss")
            return step, abs(1 - other["loss"] / one["loss"]) if alike else math.inf
    return None, 0.0


def _start(root: Path, *overrides: str, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    arguments = ["train", *overrides, f"run.root={root}", f"run.name={RUN}"]
    return subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), "-m", "bn_inception", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate()
    if process.returncode != 0:
        lines = said.strip().splitlines() or [f"status {process.returncode}"]
        # torchrun frames what a process has said with lines of its own.
        own = [line for line in lines if line.startswith("bn-inception: ")]
        reason = (own or lines)[-1].removeprefix("bn-inception: ")
        raise UserError(f"verify-resume: training failed: {reason}")


def _kill_after(process: subprocess.Popen[str], root: Path) -> None:
    """Kill the run, and its workers, once it has logged KILL_AFTER steps."""
    while process.poll() is None and len(_records(root)) < KILL_AFTER:
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


def _records(root: Path) -> Records:
    """A run's records so far, without their speed, which no two runs share."""
    try:
        lines = (root / RUN / "metrics.jsonl").read_text("utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    # The last line may still be being written.
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{**record, "images_per_second": None} for record in whole]


def _weights(root: Path) -> str:
    return weights_hash(load(root / RUN / "checkpoints" / LAST)["network"])
