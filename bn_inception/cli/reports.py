"""`bn-inception runs`, `compare` and `claims`: what the runs that a person has made come to."""

import sys
import time
from enum import Enum
from pathlib import Path

from bn_inception import report
from bn_inception.cli.command import command
from bn_inception.cli.run_arguments import Given, read_run_arguments
from bn_inception.errors import UserError
from bn_inception.report.claims import Verdict
from bn_inception.report.progress import HEADER, read_progress

HOME_AND_CLEAR = "\x1b[H\x1b[2J"
LOOK_SECONDS = 10.0


@command("runs", plain="folder")
def runs(folder: str, watch: bool) -> None:
    """Print a line a run, how it stands; with `--watch` again and again until Ctrl-C."""
    while True:
        found = read_progress(Path(folder))
        if not found:
            raise UserError(f"{folder}: no run in it; give the folder of your runs")
        if watch and sys.stdout.isatty():
            print(HOME_AND_CLEAR, end="")
        print(HEADER, *(run.line() for run in found), sep="\n", flush=True)
        if not watch:
            return
        time.sleep(LOOK_SECONDS)


class Axis(Enum):
    """How steps are drawn."""

    linear = "linear"
    log = "log"


@command("compare", plain="runs")
def compare(runs: list[str], baseline: str, axis: Axis, output: str | None) -> None:
    """Print the paper's Figures 3 and 4 for run folders, and write them with Figure 2."""
    given = read_run_arguments(runs)
    comparison = report.compare(given.runs, baseline=baseline)
    errors = report.figure4(comparison, given.ensembles)
    print(report.as_text(comparison, *([] if errors is None else [errors])))
    if output is not None:
        written = report.write_report(
            comparison,
            given.runs,
            Path(output),
            ensembles=given.ensembles,
            verdicts=_judged(given),
            axis=axis.value,
        )
        print(*written, sep="\n")


@command("claims", plain="runs")
def claims(runs: list[str], require: list[int], output: str | None) -> int:
    """Judge the paper's statements; the status is 1 where a required one does not hold."""
    verdicts = _judged(read_run_arguments(runs))
    failing = report.required_numbers(verdicts, require)
    print(report.claims_text(verdicts))
    if output is not None:
        print("", *report.write_claims(verdicts, Path(output)), sep="\n")
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
