"""`bn-inception runs`, `compare` and `claims`: what the runs that a person has made come to."""

import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bn_inception import report
from bn_inception.cli.command import Call, command
from bn_inception.cli.run_arguments import Given, read_run_arguments
from bn_inception.errors import UserError
from bn_inception.report.claims import Verdict
from bn_inception.report.progress import HEADER, read_progress

HOME_AND_CLEAR = "\x1b[H\x1b[2J"
LOOK_SECONDS = 10.0


@dataclass
class RunsConfig:
    """The keys of `configs/runs.yaml`."""

    folder: str
    watch: bool


@command("runs", RunsConfig, plain="folder")
def runs(call: Call[RunsConfig]) -> None:
    """Print a line a run, how it stands; with `--watch` again and again until Ctrl-C."""
    config = call.config
    while True:
        found = read_progress(Path(config.folder))
        if not found:
            raise UserError(f"{config.folder}: no run in it; give the folder of your runs")
        if config.watch and sys.stdout.isatty():
            print(HOME_AND_CLEAR, end="")
        print(HEADER, *(run.line() for run in found), sep="\n", flush=True)
        if not config.watch:
            return
        time.sleep(LOOK_SECONDS)


class Axis(Enum):
    """How steps are drawn."""

    linear = "linear"
    log = "log"


@dataclass
class CompareConfig:
    """The keys of `configs/compare.yaml`."""

    runs: list[str]
    baseline: str
    axis: Axis
    output: str | None


@command("compare", CompareConfig, plain="runs")
def compare(call: Call[CompareConfig]) -> None:
    """Print the paper's Figures 3 and 4 for run folders, and write them with Figure 2."""
    config = call.config
    given = read_run_arguments(config.runs)
    comparison = report.compare(given.runs, baseline=config.baseline)
    errors = report.figure4(comparison, given.ensembles)
    print(report.as_text(comparison, *([] if errors is None else [errors])))
    if config.output is not None:
        written = report.write_report(
            comparison,
            given.runs,
            Path(config.output),
            ensembles=given.ensembles,
            verdicts=_judged(given),
            axis=config.axis.value,
        )
        print(*written, sep="\n")


@dataclass
class ClaimsConfig:
    """The keys of `configs/claims.yaml`."""

    runs: list[str]
    require: list[int]
    output: str | None


@command("claims", ClaimsConfig, plain="runs")
def claims(call: Call[ClaimsConfig]) -> int:
    """Judge the paper's statements; the status is 1 where a required one does not hold."""
    config = call.config
    verdicts = _judged(read_run_arguments(config.runs))
    failing = report.required_numbers(verdicts, config.require)
    print(report.claims_text(verdicts))
    if config.output is not None:
        print("", *report.write_claims(verdicts, Path(config.output)), sep="\n")
    for verdict in failing:
        print(f"\nrequired: {verdict.statement.number} {verdict.decision.value}")
    return 1 if failing else 0


def _judged(given: Given) -> list[Verdict]:
    from bn_inception.network.invariance import scale_invariance  # late, because it imports torch

    return report.judge(
        given.runs,
        ensembles=given.ensembles,
        edges=given.edges,
        differences=scale_invariance(),
    )
