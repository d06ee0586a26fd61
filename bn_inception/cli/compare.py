"""`bn-inception compare`: the paper's Figures 2, 3 and 4 for the runs a person has made."""

from collections.abc import Sequence
from pathlib import Path

from bn_inception.cli.arguments import split_positional, take_print_config
from bn_inception.cli.runs import read_run_arguments
from bn_inception.config import compose, write_yaml


def run(arguments: Sequence[str]) -> int:
    """Compare run folders; return the exit status."""
    arguments, print_config = take_print_config(arguments)
    paths, overrides = split_positional(arguments)
    config = compose("compare", overrides)
    config["runs"] = [*config["runs"], *paths]
    if print_config:
        print(write_yaml(config), end="")
        return 0
    from bn_inception import report

    runs, ensembles = read_run_arguments(config["runs"])
    comparison = report.compare(runs, baseline=config["baseline"])
    groups = report.group_seeds(runs, comparison.target, baseline=comparison.baseline)
    tables = (
        report.seeds(groups, comparison.target),
        report.figure4(report.named_evaluations(runs, ensembles)),
    )
    print(report.as_text(comparison, *(table for table in tables if table is not None)))
    if config["output"] is not None:
        from bn_inception.network.invariance import scale_invariance

        verdicts = report.judge(runs, ensembles=ensembles, invariance=scale_invariance())
        written = report.write_report(
            comparison,
            runs,
            Path(config["output"]),
            groups=groups,
            ensembles=ensembles,
            verdicts=verdicts,
        )
        for path in written:
            print(path)
    return 0
