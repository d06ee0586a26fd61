"""`bn-inception benchmark step`: how fast a training step is here, piece by piece."""

import sys
from dataclasses import dataclass, field

from bn_inception.benchmark.step import StepBenchmark, benchmark_step
from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.quoting import printable
from bn_inception.training.settings import RunConfig


@dataclass
class BenchmarkStepConfig(RunConfig):
    """The keys of `configs/benchmark_step.yaml`."""

    benchmark: StepBenchmark = field(default_factory=StepBenchmark)
    output: str | None = None


def run(call: Call[BenchmarkStepConfig]) -> int:
    """Measure, print the table and what it means; return 0."""
    output = output_file(call.config.output)
    benchmark_step(call.config, call.config.benchmark, say).show(output)
    return 0


def say(line: str) -> None:
    """Show how far a benchmark is."""
    print(printable(line), file=sys.stderr, flush=True)


COMMAND = Command("benchmark step", BenchmarkStepConfig, run)
