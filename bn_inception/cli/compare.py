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

    given = read_run_arguments(config["runs"])
    comparison = report.compare(given.runs, baseline=config["baseline"])
    errors = report.figure4(report.named_evaluations(given.runs, given.ensembles))
    print(report.as_text(comparison, *([] if errors is None else [errors])))
    if config["output"] is not None:
        from bn_inception.network.invariance import scale_invariance

        verdicts = report.judge(
            given.runs,
            ensembles=given.ensembles,
            edges=given.edges,
            differences=scale_invariance(),
        )
        written = report.write_report(
            comparison,
            given.runs,
            Path(config["output"]),
            ensembles=given.ensembles,
            verdicts=verdicts,
        )
        for path in written:
            print(path)
    return 0
