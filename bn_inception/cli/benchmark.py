"""`bn-inception benchmark input|step`: speeds on this machine, as ratios in one run."""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bn_inception.cli.arguments import output_file, split_positional, take_print_config
from bn_inception.config import compose, run_config, write_yaml
from bn_inception.config.convert import checked
from bn_inception.errors import UserError
from bn_inception.quoting import printable

SUBJECTS = ("input", "step")


def run(arguments: Sequence[str]) -> int:
    """Measure the subject named first, print the table and what it means; return 0."""
    subject = arguments[0] if arguments else ""
    if subject not in SUBJECTS:
        near = difflib.get_close_matches(subject, SUBJECTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"benchmark: {subject or 'no subject'}; write bn-inception benchmark "
            f"{'|'.join(SUBJECTS)} [key=value ...]{hint}"
        )
    rest, print_config = take_print_config(arguments[1:])
    plain, overrides = split_positional(rest)
    if plain:
        raise UserError(
            f"{plain[0]}: benchmark {subject} takes key=value only; see bn-inception benchmark -h"
        )
    composed = compose(f"benchmark_{subject}", overrides)
    if print_config:
        print(write_yaml(composed), end="")
        return 0
    given = composed.pop("output")
    output = output_file(None if given is None else str(given))
    from bn_inception.benchmark.rows import as_table, write_rows

    rows, sentences, about = (_input if subject == "input" else _step)(composed)
    print(as_table(rows), "", *sentences, sep="\n")
    if output is not None:
        write_rows(output, rows, about)
        print(output)
    return 0


def _input(composed: dict[str, Any]):  # type: ignore[no-untyped-def]
    from bn_inception.benchmark.input import InputBenchmark, benchmark_input
    from bn_inception.data import DataConfig

    @dataclass
    class BenchmarkInputConfig:
        """The keys of `configs/benchmark_input.yaml` but for `output`."""

        data: DataConfig = field(default_factory=DataConfig)
        benchmark: InputBenchmark = field(default_factory=InputBenchmark)

    config = checked(composed, BenchmarkInputConfig)
    return benchmark_input(config.data, config.benchmark, _say)


def _step(composed: dict[str, Any]):  # type: ignore[no-untyped-def]
    from bn_inception.benchmark.step import StepBenchmark, benchmark_step

    settings = checked(composed.pop("benchmark"), StepBenchmark)
    return benchmark_step(run_config(composed), settings, _say)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
