"""`bn-inception benchmark input`, `benchmark step`, `plan`: speeds, and what they come to."""

from dataclasses import dataclass, field

from bn_inception.benchmark import input as images_in
from bn_inception.benchmark import plan as plans
from bn_inception.benchmark import step as steps
from bn_inception.cli.command import Call, command, output_file
from bn_inception.config import compose
from bn_inception.config.compose import checked
from bn_inception.data import DataConfig, DataKind, open_sources
from bn_inception.paper import results
from bn_inception.training.settings import RunConfig

MEMBERS = tuple(f"ensemble/{number}" for number in range(1, results.ENSEMBLE_MODELS + 1))
RECIPES = (*results.FIGURE_3, *results.CONTROLS, *MEMBERS)


@command("benchmark input")
def benchmark_input(
    data: DataConfig, benchmark: images_in.InputBenchmark, output: str | None
) -> None:
    """Measure how fast images come in, as ratios in one run."""
    file = output_file(output)
    images_in.benchmark_input(data, benchmark).show(file)


@dataclass
class BenchmarkStepConfig(RunConfig):
    """The keys of `configs/benchmark_step.yaml`."""

    benchmark: steps.StepBenchmark = field(default_factory=steps.StepBenchmark)
    output: str | None = None


@command("benchmark step", BenchmarkStepConfig)
def benchmark_step(call: Call[BenchmarkStepConfig]) -> None:
    """Measure how fast a training step is here, piece by piece."""
    file = output_file(call.config.output)
    steps.benchmark_step(call.config, call.config.benchmark).show(file)


@dataclass
class PlanConfig(RunConfig):
    """The keys of `configs/plan.yaml`."""

    plan: plans.PlanSettings = field(default_factory=plans.PlanSettings)
    output: str | None = None


@command("plan", PlanConfig)
def plan(call: Call[PlanConfig]) -> None:
    """Measure what is not given, apply the model, print rows and assumptions."""
    config = call.config
    file = output_file(config.output)
    given = [word.partition("=")[2] for word in call.overrides if word.startswith("recipe=")]
    others = [word for word in call.overrides if not word.startswith("recipe=")]
    configs = [
        checked(compose("plan", [*others, f"recipe={recipe}"]), PlanConfig)
        for recipe in given or RECIPES
    ]
    known = config.data.kind is not DataKind.synthetic  # whose images say nothing of ImageNet's
    sources = open_sources(config.data) if known else None
    plans.forecast(configs, config.plan, sources).show(file)
