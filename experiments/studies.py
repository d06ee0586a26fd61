"""How BN's advantage depends on one setting: the table and the figure of a study.

    python experiments/studies.py KEY OUTPUT RUN_FOLDER ...

KEY is what differs between the runs, as in config.yaml: scale.compression, scale.rate_factor,
network.initialization. At each of its values the runs are judged as `bn-inception compare` judges
them, by the plain network's runs at the same value. A value without a finished run of plain
Inception is refused. Writes OUTPUT.json, OUTPUT.md, OUTPUT.png and OUTPUT.svg.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from bn_inception.drawing import COLOURS, drawing, frame, style
from bn_inception.errors import UserError
from bn_inception.files import write_bytes, write_json, write_text
from bn_inception.paper.results import FIGURE_3
from bn_inception.report.comparison import Kind, compare
from bn_inception.report.curves import learned_limit
from bn_inception.report.estimates import Estimate
from bn_inception.report.runs import read_runs

Value = float | str


@dataclass(frozen=True)
class Point:
    """One recipe at one value.

    Accuracies are fractions. `ratio` is of steps to plain Inception's plateau less a point, and
    `to_80` of those to 80 % of it, relative to plain Inception's at the same value; both are None
    where that stays at chance. `to_best` is `ratio` relative to plain Inception at that value at
    which it ends best, where it has the same number of steps at all.
    """

    value: Value
    recipe: str
    title: str
    seeds: int
    steps: int
    target: float | None
    plateau: Estimate | None
    difference: Estimate | None
    ratio: Estimate | None
    to_80: float | None
    to_best: Estimate | None
    outcome: str


def study(key: str, folders: Sequence[Path]) -> list[Point]:
    """Every recipe at every value of `key`, by value and in the paper's order."""
    groups = defaultdict(list)
    for folder in folders:
        found = OmegaConf.select(OmegaConf.load(folder / "config.yaml"), key)
        if found is None:
            raise UserError(f"{folder}: its configuration has no {key}")
        groups[found].append(folder)
    compared = {value: compare(read_runs(groups[value])) for value in sorted(groups)}
    plain = [row for figure3 in compared.values() for row in figure3.rows if row.is_baseline]
    best = max(plain, key=lambda row: row.plateau.value if row.plateau else 0.0)
    same_steps = len({row.runs[0].summary.planned_steps for row in plain}) == 1
    points = []
    for value, figure3 in compared.items():
        for row in figure3.of(Kind.recipe):
            to_best = None
            if same_steps and not row.is_baseline:
                to_best = compare([*best.runs, *row.runs]).rows[1].ratio
            summary = row.runs[0].summary
            about = value, row.recipe, row.title, len(row.runs), summary.planned_steps
            # Steps to a plain network that stays at chance show nothing.
            shows = (figure3.target or 0) > learned_limit(1 / (summary.classes or 1))
            ratios = (row.ratio, row.shares[0]) if shows else (None, None)
            found = figure3.target, row.plateau, row.difference, *ratios, to_best
            outcome = row.outcome if shows else "no target: Inception is at chance"
            points.append(Point(*about, *found, outcome))
    return points


def table(key: str, points: Sequence[Point]) -> str:
    """One line a point, as Markdown."""
    lines = [
        f"| {key} | recipe | seeds | steps | plateau, % | to Inception, points "
        "| steps to its plateau less a point, % of Inception's | to 80 % of it "
        "| steps to the best Inception's | outcome |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for point in points:
        to_80 = "-" if point.to_80 is None else f"{100 * point.to_80:.1f}"
        cells = (
            point.value, point.title, point.seeds, f"{point.steps:,}", interval(point.plateau),
            interval(point.difference, "+"), interval(point.ratio), to_80,
            interval(point.to_best), point.outcome,
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def interval(found: Estimate | None, sign: str = "") -> str:
    """In hundredths, with the ends of the 95 % interval."""
    if found is None:
        return "-"
    ends = [format(100 * end, f"{sign}z.1f") for end in (found.value, found.low, found.high)]
    if found.high == float("inf"):  # a run never got there
        return "more than {} (at least {})".format(*ends)
    return "{} ({} to {})".format(*ends)


def draw(key: str, points: Sequence[Point], name: str) -> dict[str, bytes]:
    """Plateaus, and steps relative to plain Inception's, by value: PNG and SVG."""
    values = list(dict.fromkeys(point.value for point in points))
    with style():
        figure = Figure(figsize=(8.0, 3.8), layout="constrained")
        plateaus, ratios = figure.subplots(1, 2)
        for recipe, colour in zip(FIGURE_3, COLOURS, strict=False):
            own = [point for point in points if point.recipe == recipe]
            if own:
                title = own[0].title
                line(plateaus, values, own, [p.plateau for p in own], colour, title)
                line(ratios, values, own, [p.ratio for p in own], colour, title)
        plateaus.set_ylabel("plateau, %")
        ratios.set_ylabel("steps to Inception's plateau less a point,\n% of Inception's")
        ratios.axhline(100, color="0.6", linewidth=0.8)
        ratios.set_ylim(bottom=0)
        for axes in (plateaus, ratios):
            axes.set_xticks(range(len(values)), [str(value) for value in values])
            axes.set_xlabel(key)
            frame(axes)
        plateaus.legend(frameon=False)
    return drawing(name, f"Results by {key}", figure).files


def line(
    axes: Axes,
    values: Sequence[Value],
    own: Sequence[Point],
    estimates: Sequence[Estimate | None],
    colour: str,
    title: str,
) -> None:
    """One recipe's estimates with their intervals; where a run never got there a gap, and a mark.

    The mark, a triangle that points up, stands at the last step of the run.
    """
    places, missing = [values.index(point.value) for point in own], float("nan")
    ended = [found is not None and found.high < float("inf") for found in estimates]
    value, low, high = (
        [100 * getattr(found, end) if known else missing
         for found, known in zip(estimates, ended, strict=True)]
        for end in ("value", "low", "high")
    )  # fmt: skip
    if any(ended):
        ends = [[v - e for v, e in zip(value, low, strict=True)],
                [e - v for v, e in zip(value, high, strict=True)]]  # fmt: skip
        axes.errorbar(places, value, ends, fmt="o-", color=colour, capsize=3, label=title)
    for place, found, known in zip(places, estimates, ended, strict=True):
        if found is not None and not known:
            axes.plot(place, 100 * found.value, "^", color=colour, markersize=8)


def main(key: str, output: str, *folders: str) -> None:
    points = study(key, [Path(folder) for folder in folders])
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table(key, points)
    found: dict[str, Any] = {"kind": "study", "key": key, "points": [asdict(p) for p in points]}
    write_json(
        path.with_suffix(".json"), json.loads(json.dumps(found), parse_constant=lambda _: None)
    )
    write_text(path.with_suffix(".md"), text)
    for name, content in draw(key, points, path.name).items():
        write_bytes(path.parent / name, content)
    print(text, end="")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as error:
        raise SystemExit(f"studies: {error}") from error
