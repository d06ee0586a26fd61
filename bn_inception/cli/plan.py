"""`bn-inception plan`: hours, GPU-hours, memory and disk of runs that have not been made."""

from dataclasses import dataclass, field

from bn_inception.benchmark.plan import PlanSettings, forecast_runs, lines, rows
from bn_inception.benchmark.rows import Measured, about_here
from bn_inception.cli.command import Call, Command
from bn_inception.cli.output import output_file
from bn_inception.config import compose
from bn_inception.config.convert import checked
from bn_inception.data import DataKind, open_sources
from bn_inception.errors import AgreedError, UserError
from bn_inception.paper import results
from bn_inception.training import choose_device, joined, world_from_environment
from bn_inception.training.settings import RunConfig

MEMBERS = tuple(f"ensemble/{number}" for number in range(1, results.ENSEMBLE_MODELS + 1))
RECIPES = (*results.FIGURE_3, *results.CONTROLS, *MEMBERS)


@dataclass
class PlanConfig(RunConfig):
    """The keys of `configs/plan.yaml`."""

    plan: PlanSettings = field(default_factory=PlanSettings)
    output: str | None = None


def run(call: Call[PlanConfig]) -> int:
    """Measure what is not given, apply the model, print rows and assumptions; return 0.

    Under torchrun the exchange between the processes is measured too, and the first one prints.
    """
    config = call.config
    try:
        output = output_file(config.output)
        given = [word.partition("=")[2] for word in call.overrides if word.startswith("recipe=")]
        others = [word for word in call.overrides if not word.startswith("recipe=")]
        configs = {
            recipe: checked(compose("plan", [*others, f"recipe={recipe}"]), PlanConfig)
            for recipe in given or config.plan.recipes or RECIPES
        }
    except UserError as error:
        raise AgreedError(str(error)) from error  # every process is given the same
    world = world_from_environment()
    device = choose_device(config.machine.device, world)
    with joined(world, device, config.machine.timeout):
        sources = None
        if config.data.kind is not DataKind.synthetic:  # whose images say nothing of ImageNet's
            sources = world.agreed(lambda: open_sources(config.data))
        runs = forecast_runs(configs.values(), config.plan, sources, world)
    if not world.first:
        return 0
    sentences = lines(runs, config.plan, sources, config.data)
    Measured(rows(runs), sentences, about_here()).show(output)
    return 0


COMMAND = Command("plan", PlanConfig, run)
