"""`bn-inception runs`, `compare` and `claims`: what the runs that a person has made come to."""

import sys
import time
from enum import Enum
from pathlib import Path

from bn_inception.cli.command import command
from bn_inception.cli.run_arguments import read_run_arguments
from bn_inception.files import expanded
from bn_inception.report import comparison, tables
from bn_inception.report.claims import Judged, claims_text, judge, required_numbers, write_claims
from bn_inception.report.runs import Evaluation, Run, progress

HOME_AND_CLEAR = "\x1b[H\x1b[2J"
LOOK_SECONDS = 10.0


@command("runs", plain="folder")
def runs(folder: str, watch: bool) -> None:
    """Print a line a run, how it stands; with `--watch` again and again until Ctrl-C."""
    while True:
        found = progress(Path(folder)).as_text()
        if watch and sys.stdout.isatty():
            print(HOME_AND_CLEAR, end="")
        print(found, flush=True)
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
    found, ensembles = read_run_arguments(runs)
    compared = comparison.compare(found, baseline=baseline)
    shown = tables.figure3(compared), tables.figure4(compared, ensembles)
    print("\n\n".join(table.as_text() for table in shown if table is not None))
    if output is not None:
        from bn_inception.report.page import write_report  # late, because it imports matplotlib

        judged = _judged(found, ensembles)
        folder = expanded(output)
        print(*write_report(compared, found, folder, ensembles, judged, axis.value), sep="\n")


@command("claims", plain="runs")
def claims(runs: list[str], require: list[int], output: str | None) -> int:
    """Judge the paper's statements; the status is 1 where a required one does not hold."""
    found = _judged(*read_run_arguments(runs))
    failing = required_numbers(found, require)
    print(claims_text(found))
    if output is not None:
        print("", *write_claims(found, expanded(output)), sep="\n")
    for judged in failing:
        print(f"\nrequired: {judged.statement.number} {judged.leading.decision.value}")
    return 1 if failing else 0


def _judged(runs: list[Run], ensembles: list[Evaluation]) -> list[Judged]:
    # Late, because it imports torch.
    from bn_inception.network.normalization import scale_invariance

    return judge(runs, ensembles=ensembles, differences=scale_invariance())
