"""`report.html`: everything about some runs on one page that needs nothing but itself."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader

from bn_inception.drawing import Drawing
from bn_inception.record.environment import command_line
from bn_inception.report.claims import Verdict, by_statement
from bn_inception.report.comparison import Figure3, Kind, Model
from bn_inception.report.figures import by_crops
from bn_inception.report.runs import Run
from bn_inception.report.tables import figure3, figure4
from bn_inception.report.verdicts import claims_table, conclusion, shared_command

_ENVIRONMENT = ("git", "versions", "cpu", "gpus", "platform", "data_fingerprint")
"""The parts of `environment.json` that tell a reader something."""


def report_page(
    comparison: Figure3,
    runs: Sequence[Run],
    drawings: Sequence[Drawing],
    *,
    verdicts: Sequence[Verdict] = (),
    models: Sequence[Model] = (),
) -> str:
    """Write the page.

    Args:
        comparison: of `runs`.
        runs: those compared.
        drawings: of `figure2`.
        verdicts: of `judge`; none for no section on them.
        models: of `evaluated_models`, for Figure 4 and the accuracy by crops.

    Returns:
        HTML that opens without a network. Absolute paths are shortened to their last part. Whatever
        text the runs hold is escaped.
    """
    templates = Environment(
        loader=PackageLoader("bn_inception.report", "."), autoescape=True, trim_blocks=True
    )
    templates.filters["shared"] = shared_command
    described = [dict(_facts(run)) for run in runs]
    first, *rest = described
    shared = [item for item in first.items() if rest and all(item in d.items() for d in rest)]
    return templates.get_template("page.html.jinja").render(
        count=f"{len(runs)} run{'s' if len(runs) > 1 else ''}",
        comparison=comparison,
        conclusion=conclusion(comparison, verdicts),
        recipes=figure3(comparison, (Kind.recipe,)),
        beside=figure3(comparison, (Kind.control, Kind.change, Kind.member)),
        drawings=drawings,
        errors=figure4(models),
        crops=by_crops(models),
        claims=claims_table(verdicts) if verdicts else None,
        verdicts=by_statement(verdicts),
        shared=shared,
        runs=[
            (run.name, [item for item in facts.items() if item not in shared])
            for run, facts in zip(runs, described, strict=True)
        ],
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    summary = run.summary
    yield "recipe", " ".join([summary.recipe, *map(shared_option, run.overrides)])
    yield "seed", str(summary.seed)
    yield "status", summary.status.value
    yield "steps", f"{summary.step:,}"
    if summary.parameters is not None:
        yield "parameters", f"{summary.parameters:,}"
    if summary.classes is not None:
        yield "classes", f"{summary.classes:,}"
    yield "throughput", f"{summary.images_per_second:,.0f} images/s"
    command = run.environment.get("command")
    if isinstance(command, list):
        yield "command", " ".join(map(str, command))
    for key in _ENVIRONMENT:
        value = run.environment.get(key)
        if isinstance(value, dict):
            yield key, ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
        elif isinstance(value, list):
            yield key, ", ".join(map(str, value))
        elif value is not None:
            yield key, str(value)
    for key, value in run.config.items():
        yield key, _plain(value)


def shared_option(option: str) -> str:
    """A `key=value` whose absolute path, if it is one, is shortened to its last part."""
    return command_line(["", option])[1]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
