"""`bn-inception verify-resume`: does a killed and resumed run equal an undisturbed one, here?"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bn_inception.cli.arguments import split_positional, take_print_config
from bn_inception.config import compose, run_config, write_yaml
from bn_inception.errors import UserError

STEPS, KILL_AFTER = 24, 9
"""Steps of each run, and the logged step after which the second one is killed."""
SHORT = [f"train.steps={STEPS}", "train.evaluate_every=8", "train.checkpoint_every=5",
         "train.log_every=1"]  # fmt: skip
WHOLE, KILLED = "whole", "killed"


def run(arguments: Sequence[str]) -> int:
    """Train undisturbed, and again killed and resumed; return 0 if the two are equal, else 1.

    The undisturbed run reads images in this process, the killed one in one worker, and in two
    after the kill.
    """
    arguments, print_config = take_print_config(arguments)
    plain, given = split_positional(arguments)
    if plain:
        raise UserError(f"{plain[0]}: verify-resume takes key=value only, as train does")
    overrides = [*SHORT, *given]
    composed = compose("train", overrides)
    run_config(composed)
    if print_config:
        print(write_yaml(composed), end="")
        return 0
    from bn_inception.network.checkpoint import LAST, load, weights_hash

    with tempfile.TemporaryDirectory(prefix="verify-resume-") as name:
        root = Path(name)
        print("1 of 2: undisturbed", flush=True)
        _finish(_start(root, WHOLE, overrides, "data.workers=0"))
        print(f"2 of 2: killed after step {KILL_AFTER}, then resumed", flush=True)
        _kill_after(_start(root, KILLED, overrides, "data.workers=1"), root / KILLED)
        _finish(_start(root, KILLED, overrides, "data.workers=2", "run.resume=true"))
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
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]
) -> int | None:
    """Return the step of the first record that differs between two runs; None if none does.

    Speed is left out: no two runs share it.
    """
    for one, other in zip(first, second, strict=False):
        if {**one, "images_per_second": None} != {**other, "images_per_second": None}:
            return int(min(one["step"], other["step"]))
    if len(first) == len(second):
        return None
    longer = max(first, second, key=len)
    return int(longer[min(len(first), len(second))]["step"])


def _start(root: Path, name: str, overrides: Sequence[str], *more: str) -> subprocess.Popen[str]:
    arguments = [*overrides, f"run.root={root}", f"run.name={name}", *more]
    command = [sys.executable, "-m", "bn_inception", "train", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate()
    if process.returncode != 0:
        last = said.strip().splitlines()[-1] if said.strip() else f"status {process.returncode}"
        raise UserError(f"verify-resume: training failed: {last.removeprefix('bn-inception: ')}")


def _kill_after(process: subprocess.Popen[str], folder: Path) -> None:
    """Kill the run, and its workers, once it has logged KILL_AFTER steps."""
    while process.poll() is None and len(_records(folder)) < KILL_AFTER:
        time.sleep(0.002)
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
