"""`bn-inception compare`: the paper's Figure 3 and Figure 2 for the runs a person has made."""

from collections.abc import Sequence
from pathlib import Path

from bn_inception.cli.arguments import split_positional, take_print_config
from bn_inception.config import compose, write_yaml


def run(arguments: Sequence[str]) -> int:
    """Compare run folders; return the exit status."""
    arguments, print_config = take_print_config(arguments)
    folders, overrides = split_positional(arguments)
    config = compose("compare", overrides)
    config["runs"] = [*config["runs"], *folders]
    if print_config:
        print(write_yaml(config), end="")
        return 0
    from bn_inception.report import as_text, compare, read_runs, write_report

    runs = read_runs([Path(folder) for folder in config["runs"]])
    comparison = compare(runs, baseline=config["baseline"])
    print(as_text(comparison))
    if config["output"] is not None:
        for path in write_report(comparison, runs, Path(config["output"])):
            print(path)
    return 0
