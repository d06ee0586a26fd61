"""`bn-inception plan`: hours, GPU-hours, memory and disk of runs that have not been made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bn_inception.cli.arguments import output_file, split_positional, take_print_config
from bn_inception.config import compose, run_config, write_yaml
from bn_inception.config.convert import checked
from bn_inception.errors import AgreedError, UserError
from bn_inception.paper import results

if TYPE_CHECKING:
    from bn_inception.training.settings import RunConfig

MEMBERS = tuple(f"ensemble/{number}" for number in range(1, results.ENSEMBLE_MODELS + 1))
RECIPES = (*results.FIGURE_3, *results.CONTROLS, *MEMBERS)
OWN = ("plan", "output")
"""The keys of `configs/plan.yaml` beyond those of `train.yaml`."""


def run(arguments: Sequence[str]) -> int:
    """Measure what is not given, apply the model, print rows and assumptions; return 0.

    Under torchrun the exchange between the processes is measured too, and the first one prints.
    """
    arguments, print_config = take_print_config(arguments)
    plain, overrides = split_positional(arguments)
    if plain:
        raise UserError(f"{plain[0]}: plan takes key=value only; see bn-inception plan --help")
    from bn_inception.benchmark.plan import PlanSettings, forecast_runs, lines, rows
    from bn_inception.benchmark.rows import as_table, write_rows
    from bn_inception.data import DataKind, open_sources
    from bn_inception.record import describe
    from bn_inception.training import choose_device, joined, world_from_environment

    @dataclass
    class Own:
        """`OWN`, checked."""

        plan: PlanSettings
        output: str | None

    try:
        composed = compose("plan", overrides)
        own = checked({key: composed[key] for key in OWN}, Own)
        output = output_file(own.output)
        config = _train_config(composed)
        given = [word.partition("=")[2] for word in overrides if word.startswith("recipe=")]
        others = [word for word in overrides if not word.startswith("recipe=")]
        configs = {
            recipe: _train_config(compose("plan", [*others, f"recipe={recipe}"]))
            for recipe in given or own.plan.recipes or RECIPES
        }
    except UserError as error:
        raise AgreedError(str(error)) from error  # every process is given the same
    if print_config:
        print(write_yaml(composed), end="")
        return 0
    world = world_from_environment()
    device = choose_device(config.machine.device, world)
    with joined(world, device, config.machine.timeout):
        sources = None
        if config.data.kind is not DataKind.synthetic:  # whose images say nothing of ImageNet's
            sources = world.agreed(lambda: open_sources(config.data))
        runs = forecast_runs(configs.values(), own.plan, sources, world)
    if not world.first:
        return 0
    made = rows(runs)
    print(as_table(made), "", *lines(runs, own.plan, sources, config.data), sep="\n")
    if output is not None:
        about = describe("")
        del about["data_fingerprint"]
        write_rows(output, made, about)
        print(output)
    return 0


def _train_config(composed: dict[str, object]) -> "RunConfig":
    return run_config({key: value for key, value in composed.items() if key not in OWN})
