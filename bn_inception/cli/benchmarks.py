"""`bn-inception benchmark input`, `benchmark step`, `plan`: speeds, and what they come to."""

from dataclasses import dataclass, field

from bn_inception.benchmark import input as images_in
from bn_inception.benchmark import step as steps
from bn_inception.benchmark.plan import PlanSettings, forecast_runs, lines, rows
from bn_inception.benchmark.rows import Measured, about_here
from bn_inception.cli.command import Call, command, output_file
from bn_inception.config import compose
from bn_inception.config.compose import checked
from bn_inception.data import DataConfig, DataKind, open_sources
from bn_inception.paper import results
from bn_inception.quoting import say
from bn_inception.training.settings import RunConfig

MEMBERS = tuple(f"ensemble/{number}" for number in range(1, results.ENSEMBLE_MODELS + 1))
RECIPES = (*results.FIGURE_3, *results.CONTROLS, *MEMBERS)


@dataclass
class BenchmarkInputConfig:
    """The keys of `configs/benchmark_input.yaml`."""

    data: DataConfig = field(default_factory=DataConfig)
    benchmark: images_in.InputBenchmark = field(default_factory=images_in.InputBenchmark)
    output: str | None = None


@command("benchmark input", BenchmarkInputConfig)
def benchmark_input(call: Call[BenchmarkInputConfig]) -> None:
    """Measure how fast images come in, as ratios in one run."""
    output = output_file(call.config.output)
    images_in.benchmark_input(call.config.data, call.config.benchmark, say).show(output)


@dataclass
class BenchmarkStepConfig(RunConfig):
    """The keys of `configs/benchmark_step.yaml`."""

    benchmark: steps.StepBenchmark = field(default_factory=steps.StepBenchmark)
    output: str | None = None


@command("benchmark step", BenchmarkStepConfig)
def benchmark_step(call: Call[BenchmarkStepConfig]) -> None:
    """Measure how fast a training step is here, piece by piece."""
    output = output_file(call.config.output)
    steps.benchmark_step(call.config, call.config.benchmark, say).show(output)


@dataclass
class PlanConfig(RunConfig):
    """The keys of `configs/plan.yaml`."""

    plan: PlanSettings = field(default_factory=PlanSettings)
    output: str | None = None


@command("plan", PlanConfig)
def plan(call: Call[PlanConfig]) -> None:
    """Measure what is not given, apply the model, print rows and assumptions."""
    config = call.config
    output = output_file(config.output)
    given = [word.partition("=")[2] for word in call.overrides if word.startswith("recipe=")]
    others = [word for word in call.overrides if not word.startswith("recipe=")]
    configs = [
        checked(compose("plan", [*others, f"recipe={recipe}"]), PlanConfig)
        for recipe in given or RECIPES
    ]
    known = config.data.kind is not DataKind.synthetic  # whose images say nothing of ImageNet's
    runs = forecast_runs(configs, config.plan, open_sources(config.data) if known else None)
    Measured(rows(runs), about_here(), lines(runs, config.plan)).show(output)
