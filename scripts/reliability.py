"""Do faults to short runs, continue each, compare with undisturbed ones, and write what came of it.

usage: scripts/reliability.py OUTPUT.md [--seed N]      every fault; some minutes on two cores
       scripts/reliability.py OUTPUT.md --save-seconds  what a checkpoint costs; the rest stays
Exit status 1 if a run did not survive. The faults themselves are in tests/faults.py.
"""

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch

# The harness is the test suite's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import faults
import machine_faults

from bn_inception.network import Inception, NetworkConfig, checkpoint
from bn_inception.training.optimizer import OptimizerConfig, build_optimizer
from bn_inception.training.settings import TrainConfig

COSTS = "## What a checkpoint costs"
NOT_MEASURED = "Not measured yet: `scripts/reliability.py docs/reliability.md --save-seconds`."


def cases(bench: faults.Bench, seed: int) -> Iterator[faults.Case]:
    """Every fault, 30 of them `kill -9` of a run of one process."""
    yield from chain(
        faults.kills(bench, seed, by_time=12, by_place=20),
        faults.signals(seed),
        faults.workers(),
        faults.disks(bench),
        faults.damage(seed, flipped=5, cut=3),
        faults.data(),
        faults.ranks(),
        faults.launched(),
        machine_faults.power_cuts(bench, seed, 15),
        machine_faults.consoles(),
        machine_faults.hard_links(),
        machine_faults.files(bench),
    )


def machine() -> str:
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} logical cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def report(tried: list[faults.Tried], seed: int, costs: str) -> str:
    """The page, as Markdown."""
    done = [result for result in tried if not result.skipped]
    survived = sum(not result.problems for result in done)
    lines = [
        "# Reliability",
        "",
        "Faults done to short runs. After each the run is continued with `run.resume=auto` and "
        "compared with an undisturbed one: weights, momentum, BN statistics, best network and "
        "every line of `metrics.jsonl` (but for the speed) must be equal bit for bit, and nothing "
        "may be lost but the steps since the last checkpoint. Written by",
        "",
        "```sh",
        f".venv/bin/python scripts/reliability.py docs/reliability.md --seed {seed}",
        "```",
        "",
        f"on {machine()}. {len(done)} faults tried, {survived} survived, "
        f"{len(tried) - len(done)} that could not be tried here.",
        "",
        f"Each run: {faults.STEPS} steps on the CPU, a checkpoint every "
        f"{faults.CHECKPOINT_EVERY}, an evaluation every 4. *Lost*: the most steps that were done "
        "again, counted from the updates of the run that was disturbed and of the one that "
        "continued it, with what is allowed: no more than a checkpoint's spacing, twice that where "
        "the newest checkpoint itself is damaged or lost. A run that does not end has not "
        "survived. A power cut leaves what was synced. With a deleted or foreign file the run must "
        "not continue before it is put right, and change nothing.",
        "",
        "| fault | tried | survived | lost (allowed) |",
        "|---|---:|---:|---:|",
    ]
    for kind in dict.fromkeys(result.case.kind for result in tried):
        rows = [result for result in tried if result.case.kind == kind]
        here = [result for result in rows if not result.skipped]
        if not here:
            lines.append(f"| {kind} ({rows[0].skipped}) | 0 |  |  |")
            continue
        good = sum(not result.problems for result in here)
        lost = max(result.lost for result in here)
        allowed = max(result.case.loses for result in here)
        lines.append(f"| {kind} | {len(here)} | {good} | {lost} ({allowed}) |")
    failed = [result for result in done if result.problems]
    if failed:
        lines += ["", "## Not survived", ""]
        lines += [
            f"- {result.case.kind}, {result.case.detail}: {plain('; '.join(result.problems))}"
            for result in failed
        ]
    return "\n".join([*lines, "", COSTS, "", costs, ""])


def plain(text: str) -> str:
    """One cell of a table: no line breaks, bars or folder names of this machine."""
    return re.sub(r"/[^\s'\"]*/run\d+", "RUN", " ".join(text.replace("|", "/").split()))


def save_seconds() -> str:
    """Measure a checkpoint of the paper's network on this machine's temporary folder."""
    network = Inception(NetworkConfig(), 1000)
    optimizer = build_optimizer(network, OptimizerConfig(0.045, 0.9, 0.00004, 0.96, 1))
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    seconds = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        for _ in range(7):
            begun = time.perf_counter()
            checkpoint.save(state, Path(name))
            seconds.append(time.perf_counter() - begun)
        size = (Path(name) / checkpoint.LAST).stat().st_size / 1e6
    minutes = TrainConfig.checkpoint_minutes
    assert minutes is not None
    middle = statistics.median(seconds)
    share = middle / (60 * minutes)
    return (
        f"The paper's network with its momentum, {size:.0f} MB, serialized, written, flushed, read "
        f"back and renamed: {middle:.2f} s (median of {len(seconds)}, {min(seconds):.2f} to "
        f"{max(seconds):.2f}). Training waits meanwhile: {share:.2%} of the {minutes:g} minutes "
        "between two checkpoints (`train.checkpoint_minutes`), "
        f"{'under' if share < 0.05 else 'over'} the 5 % that were the aim. On {machine()}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-seconds", action="store_true")
    given = parser.parse_args()
    page = given.output.read_text(encoding="utf-8") if given.output.exists() else ""
    faults_part, _, costs = page.partition(COSTS)
    if given.save_seconds:
        text = f"{faults_part}{COSTS}\n\n{save_seconds()}\n"
        given.output.write_text(text, encoding="utf-8")
        return 0
    memory = Path("/dev/shm")  # a folder in memory where there is one: fsync costs nothing there
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        tried = []
        with faults.Bench(Path(name)) as bench:
            for case in cases(bench, given.seed):
                result = bench.attempt(case)
                tried.append(result)
                outcome = result.skipped or "; ".join(result.problems) or "survived"
                print(f"{case.kind}, {case.detail}: {outcome}", flush=True)
    text = report(tried, given.seed, costs.strip() or NOT_MEASURED)
    given.output.write_text(text, encoding="utf-8")
    return int(any(result.problems for result in tried))


if __name__ == "__main__":
    sys.exit(main())
