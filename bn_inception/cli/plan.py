"""`bn-inception plan`: hours, GPU-hours and device memory of runs that have not been made."""

from dataclasses import dataclass, field

from bn_inception.benchmark.plan import PlanSettings, forecast_runs, lines, rows
from bn_inception.benchmark.rows import Measured, about_here
from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.config import compose
from bn_inception.config.convert import checked
from bn_inception.data import DataKind, open_sources
from bn_inception.paper import results
from bn_inception.training.settings import RunConfig

MEMBERS = tuple(f"ensemble/{number}" for number in range(1, results.ENSEMBLE_MODELS + 1))
RECIPES = (*results.FIGURE_3, *results.CONTROLS, *MEMBERS)


@dataclass
class PlanConfig(RunConfig):
    """The keys of `configs/plan.yaml`."""

    plan: PlanSettings = field(default_factory=PlanSettings)
    output: str | None = None


def run(call: Call[PlanConfig]) -> int:
    """Measure what is not given, apply the model, print rows and assumptions; return 0."""
    config = call.config
    output = output_file(config.output)
    given = [word.partition("=")[2] for word in call.overrides if word.startswith("recipe=")]
    others = [word for word in call.overrides if not word.startswith("recipe=")]
    configs = [
        checked(compose("plan", [*others, f"recipe={recipe}"]), PlanConfig)
        for recipe in given or config.plan.recipes or RECIPES
    ]
    known = config.data.kind is not DataKind.synthetic  # whose images say nothing of ImageNet's
    runs = forecast_runs(configs, config.plan, open_sources(config.data) if known else None)
    Measured(rows(runs), about_here(), lines(runs, config.plan)).show(output)
    return 0


COMMAND = Command("plan", PlanConfig, run)
