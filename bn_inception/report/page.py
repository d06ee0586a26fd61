"""`report.html`: everything about some runs on one page that needs nothing but itself."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from bn_inception.files import make_folder, write_bytes
from bn_inception.record.environment import command_line
from bn_inception.report.claims import Judged, claims_table, conclusion, shared_command
from bn_inception.report.comparison import Figure3, Kind
from bn_inception.report.figures import by_crops, figure2, inputs_of_a_layer
from bn_inception.report.runs import Evaluation, Run
from bn_inception.report.statements import RULES
from bn_inception.report.tables import as_json, figure3, figure4

_ENVIRONMENT = ("git", "versions", "cpu", "gpus", "platform", "data_fingerprint")
"""The parts of `environment.json` that tell a reader something."""


def write_report(
    comparison: Figure3,
    runs: Sequence[Run],
    folder: Path,
    ensembles: Sequence[Evaluation] = (),
    found: Sequence[Judged] = (),
    axis: str = "linear",
) -> list[Path]:
    """Write the page, the tables as Markdown and JSON, and the figures as PNG and SVG.

    `axis` is that of Figure 2's steps, `linear` or `log`. Without verdicts the page has no section
    on them. Absolute paths are shortened to their last part. The paths written are returned.
    """
    make_folder(folder, "output")
    beside = inputs_of_a_layer(comparison), by_crops(comparison, ensembles)
    drawings = [*figure2(comparison, axis), *filter(None, beside)]
    steps, errors = figure3(comparison), figure4(comparison, ensembles)
    markdown = "\n\n".join(table.as_markdown() for table in (steps, errors) if table) + "\n"
    page = _page(
        runs,
        comparison=comparison,
        conclusion=conclusion(comparison, found),
        recipes=figure3(comparison, (Kind.recipe,)),
        beside=figure3(comparison, (Kind.control, Kind.change, Kind.member)),
        drawings=drawings,
        errors=errors,
        claims=claims_table(found) if found else None,
        found=found,
    )
    files = {
        "report.html": page.encode(errors="backslashreplace"),
        "comparison.md": markdown.encode(errors="backslashreplace"),
        "comparison.json": as_json(comparison, ensembles).encode(),
    }
    for drawing in drawings:
        files |= drawing.files
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


def _page(runs: Sequence[Run], **shown: Any) -> str:
    # It opens without a network; whatever text the runs hold is escaped.
    templates = Environment(
        loader=PackageLoader("bn_inception.report", "."), autoescape=True, trim_blocks=True
    )
    templates.filters["shared"] = shared_command
    described = [dict(_facts(run)) for run in runs]
    first, *rest = described
    shared = [item for item in first.items() if rest and all(item in d.items() for d in rest)]
    return templates.get_template("page.html.jinja").render(
        shown,
        count=f"{len(runs)} run{'s' if len(runs) > 1 else ''}",
        rules=RULES,
        shared=shared,
        runs=[
            (run.name, [item for item in facts.items() if item not in shared])
            for run, facts in zip(runs, described, strict=True)
        ],
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    summary, environment = run.summary, run.environment
    # An override may hold a path.
    yield "recipe", " ".join([summary.recipe, *command_line(["", *run.overrides])[1:]])
    yield "seed", str(summary.seed)
    yield "status", summary.status.value
    for name, number in (
        ("steps", summary.step),
        ("parameters", summary.parameters),
        ("classes", summary.classes),
    ):
        if number is not None:
            yield name, f"{number:,}"
    yield "throughput", f"{summary.images_per_second:,.0f} images/s"
    command = environment.get("command")
    if isinstance(command, list):
        yield "command", " ".join(map(str, command))
    for key in _ENVIRONMENT:
        value = environment.get(key)
        if isinstance(value, dict):
            value = [f"{name} {_plain(entry)}" for name, entry in value.items()]
        if value is not None:
            yield key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    for key, value in run.config.items():
        yield key, _plain(value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
