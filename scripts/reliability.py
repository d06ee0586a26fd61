"""Do some hundred faults to short runs, and write what came of them into docs/reliability.md.

usage: scripts/reliability.py                 every fault; ten minutes on two idle cores
       scripts/reliability.py --save-seconds  what a checkpoint costs
Exit status 1 if a run did not survive. The faults themselves are in tests/faults*.py.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

# The harness is the test suite's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import faults_catalog
import faults_disk
from faults_bench import Bench, Outcome, attempt

from bn_inception.network import Inception, NetworkConfig, checkpoint
from bn_inception.training.learner import build_optimizer
from bn_inception.training.settings import OptimizerConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
TRIED, COST = "## What was tried", "## What a checkpoint costs"


def machine() -> str:
    said = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    model = re.findall(r"Model name:\s*(.*)", said)[0]
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def table(outcomes: Iterable[Outcome]) -> str:
    """What came of the faults by kind, as Markdown."""
    outcomes = list(outcomes)
    tried = [outcome for outcome in outcomes if not outcome.skipped]
    failed = [outcome for outcome in tried if outcome.problems]
    lines = [
        f"{len(tried)} faults tried, {len(tried) - len(failed)} survived, "
        f"{len(outcomes) - len(tried)} that this machine could not do. Made by "
        f"`python scripts/reliability.py` on {machine()}.",
        "",
        "| fault | tried | steps lost, at most | exit status | what is said, for instance |",
        "|---|---:|---:|---|---|",
    ]
    for kind in dict.fromkeys(outcome.fault.kind for outcome in tried):
        rows = [outcome for outcome in tried if outcome.fault.kind == kind]
        lost = max(outcome.lost for outcome in rows)
        ended = sorted({status for outcome in rows for status in outcome.statuses})
        statuses = ", ".join(
            str(status) if status >= 0 else f"signal {-status}" for status in ended
        )
        seen = next((outcome.seen for outcome in rows if outcome.seen), "")
        lines.append(f"| {kind} | {len(rows)} | {lost} | {statuses} | {plain(seen)} |")
    for outcome in failed:
        fault = outcome.fault
        lines += ["", f"Not survived: {fault.kind}, {fault.detail}: {plain(outcome.problems[0])}"]
    return "\n".join(lines)


def plain(text: str) -> str:
    """One cell of a table: no line breaks, bars or folder names of this machine."""
    return re.sub(r"/[^\s'\"]*/run\d+", "RUN", " ".join(text.replace("|", "/").split()))[:300]


def save_seconds() -> str:
    """Measure a checkpoint of the paper's network in the current folder."""
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
    return (
        f"The paper's network with its momentum, {size:.0f} MB, serialized, written, flushed, read "
        f"back and renamed: {statistics.median(seconds):.2f} s (median of {len(seconds)}, "
        f"{min(seconds):.2f} to {max(seconds):.2f}). Made by `python scripts/reliability.py "
        f"--save-seconds` on {machine()}."
    )


def write_section(heading: str, text: str) -> None:
    """Replace what stands under one heading of the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(f"{heading}\n")
    _, following, after = rest.partition("\n## ")
    PAGE.write_text(f"{before}{heading}\n\n{text}\n{following}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save-seconds", action="store_true")
    if parser.parse_args().save_seconds:
        write_section(COST, save_seconds())
        return 0
    memory = Path("/dev/shm")  # a folder in memory where there is one: fsync costs nothing there
    outcomes = []
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name,
        faults_disk.small_disk(Path(name, "disk")),
    ):
        bench = Bench(Path(name))
        for fault in faults_catalog.faults(bench, seed=1):
            outcome = attempt(bench, fault)
            outcomes.append(outcome)
            came = outcome.skipped or "; ".join(outcome.problems) or "survived"
            print(f"{fault.kind}, {fault.detail}: {came}", flush=True)
    write_section(TRIED, table(outcomes))
    return int(any(outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
