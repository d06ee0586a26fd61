"""`bn-inception benchmark input`: the input pipeline beside its peers, on the user's own data."""

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from bn_inception.cli.arguments import output_file, split_positional, take_print_config
from bn_inception.config import compose, write_yaml
from bn_inception.config.convert import checked
from bn_inception.errors import UserError


def run(arguments: Sequence[str]) -> int:
    """Measure, print the table and what it means; return 0."""
    arguments, print_config = take_print_config(arguments)
    plain, overrides = split_positional(arguments)
    if plain:
        raise UserError(
            f"{plain[0]}: benchmark input takes key=value only; see bn-inception benchmark -h"
        )
    composed = compose("benchmark_input", overrides)
    if print_config:
        print(write_yaml(composed), end="")
        return 0
    from bn_inception.benchmark.input import InputBenchmark, benchmark_input
    from bn_inception.benchmark.rows import as_table, write_rows
    from bn_inception.cli.progress import ProgressBar
    from bn_inception.data import DataConfig

    @dataclass
    class BenchmarkInputConfig:
        """The keys of `configs/benchmark_input.yaml`."""

        data: DataConfig = field(default_factory=DataConfig)
        benchmark: InputBenchmark = field(default_factory=InputBenchmark)
        output: str | None = None

    config = checked(composed, BenchmarkInputConfig)
    output = output_file(config.output)
    with closing(ProgressBar(sys.stderr)) as bar:
        result = benchmark_input(config.data, config.benchmark, bar.say, bar)
    print(as_table(result.rows))
    print()
    for sentence in result.sentences:
        print(sentence)
    if output is not None:
        write_rows(output, result.rows, result.about)
        print(output)
    return 0
