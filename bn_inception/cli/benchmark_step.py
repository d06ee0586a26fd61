"""`bn-inception benchmark step`: how fast a training step is here, piece by piece."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bn_inception.benchmark.rows import as_table, write_rows
from bn_inception.benchmark.step import StepBenchmark, benchmark_step
from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.quoting import printable
from bn_inception.training.settings import RunConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass
class BenchmarkStepConfig(RunConfig):
    """The keys of `configs/benchmark_step.yaml`."""

    benchmark: StepBenchmark = field(default_factory=StepBenchmark)
    output: str | None = None


def run(call: Call[BenchmarkStepConfig]) -> int:
    """Measure, print the table and what it means; return 0."""
    output = output_file(call.config.output)
    return report(*benchmark_step(call.config, call.config.benchmark, say), output)


def report(
    rows: "Sequence[DataclassInstance]",
    sentences: Sequence[str],
    about: Mapping[str, Any],
    output: Path | None,
) -> int:
    """Print what a benchmark measured, and write it where a file is given; return 0."""
    print(as_table(rows), "", *sentences, sep="\n")
    if output is not None:
        write_rows(output, rows, about)
        print(output)
    return 0


def say(line: str) -> None:
    """Show how far a benchmark is."""
    print(printable(line), file=sys.stderr, flush=True)


COMMAND = Command("benchmark step", BenchmarkStepConfig, run)
