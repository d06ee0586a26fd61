"""`bn-inception benchmark input`: how fast images come in, as ratios in one run."""

from dataclasses import dataclass, field

from bn_inception.benchmark.input import InputBenchmark, benchmark_input
from bn_inception.cli.benchmark_step import say
from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.data import DataConfig


@dataclass
class BenchmarkInputConfig:
    """The keys of `configs/benchmark_input.yaml`."""

    data: DataConfig = field(default_factory=DataConfig)
    benchmark: InputBenchmark = field(default_factory=InputBenchmark)
    output: str | None = None


def run(call: Call[BenchmarkInputConfig]) -> int:
    """Measure, print the table and what it means for training; return 0."""
    output = output_file(call.config.output)
    benchmark_input(call.config.data, call.config.benchmark, say).show(output)
    return 0


COMMAND = Command("benchmark input", BenchmarkInputConfig, run)
