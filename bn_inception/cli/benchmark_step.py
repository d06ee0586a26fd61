"""`bn-inception benchmark step`: what an update costs here, piece by piece."""

import sys
from collections.abc import Sequence

from bn_inception.cli.arguments import output_file, split_positional, take_print_config
from bn_inception.config import compose, run_config, write_yaml
from bn_inception.config.convert import checked
from bn_inception.errors import UserError


def run(arguments: Sequence[str]) -> int:
    """Measure, print the table and what it means; return 0."""
    arguments, print_config = take_print_config(arguments)
    plain, overrides = split_positional(arguments)
    if plain:
        raise UserError(
            f"{plain[0]}: benchmark step takes key=value only; see bn-inception benchmark -h"
        )
    composed = compose("benchmark_step", overrides)
    if print_config:
        print(write_yaml(composed), end="")
        return 0
    given, settings = composed.pop("output"), composed.pop("benchmark")
    config = run_config(composed)
    output = output_file(None if given is None else str(given))

    from bn_inception.benchmark.rows import as_table, write_rows
    from bn_inception.benchmark.step import StepBenchmark, benchmark_step

    speeds = benchmark_step(config, checked(settings, StepBenchmark), _say)
    print(as_table(speeds.rows))
    print()
    for sentence in speeds.sentences:
        print(sentence)
    if output is not None:
        write_rows(output, speeds.rows, {**speeds.about, "sentences": speeds.sentences})
        print(output)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
