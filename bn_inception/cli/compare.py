"""`bn-inception compare`: the paper's Figures 2, 3 and 4 for the runs a person has made."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bn_inception.cli.command import Call, Command
from bn_inception.cli.run_arguments import read_run_arguments


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


def run(call: Call[CompareConfig]) -> int:
    """Compare run folders; return 0."""
    from bn_inception import report

    config = call.config
    given = read_run_arguments(config.runs)
    comparison = report.compare(given.runs, baseline=config.baseline)
    errors = report.figure4(comparison, given.ensembles)
    print(report.as_text(comparison, *([] if errors is None else [errors])))
    if config.output is not None:
        from bn_inception.network.invariance import scale_invariance

        verdicts = report.judge(
            given.runs, ensembles=given.ensembles, differences=scale_invariance()
        )
        written = report.write_report(
            comparison,
            given.runs,
            Path(config.output),
            ensembles=given.ensembles,
            verdicts=verdicts,
            axis=config.axis.value,
        )
        for path in written:
            print(path)
    return 0


COMMAND = Command("compare", CompareConfig, run, plain="runs")
