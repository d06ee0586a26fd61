"""BN Figure 2 for a user's runs, and accuracy by the number of crops."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from bn_inception.drawing import (
    COLOURS,
    Drawing,
    drawing,
    frame,
    percentile_lines,
    style,
    thousands,
)
from bn_inception.paper.results import CONTROLS, FIGURE_1_PERCENTILES, FIGURE_3
from bn_inception.quoting import printable
from bn_inception.record.summary import RunStatus
from bn_inception.report.comparison import Figure3, Kind, Model, Row
from bn_inception.report.runs import Run

# The recipes in the paper's order, then the controls.
_RECIPE_COLOUR = dict(zip((*FIGURE_3, *CONTROLS), COLOURS, strict=True))
_DASHES = ("solid", "dashed", "dotted", "dashdot")
_LABEL_WIDTH = 26
"""Characters of a line of a label."""


_LARGEST_DRAWN = 1e30


def figure2(comparison: Figure3, axis: str = "linear") -> list[Drawing]:
    """Accuracy against steps: the recipes, and what was changed and the ensemble's members apart.

    A recipe has one colour. Its line is the mean over seeds, its band reaches from the lowest seed
    to the highest. A dot marks where it crosses the target. Without an evaluation there is no line.

    Args:
        comparison: its rows are drawn.
        axis: of the steps, `linear` or `log`.
    """
    recipes = {row.recipe: row for row in comparison.of(Kind.recipe, Kind.control)}
    changes, members = comparison.of(Kind.change), comparison.of(Kind.member)
    # Beside what was changed stands what it was changed from.
    plain = [recipes[name] for name in dict.fromkeys(r.recipe for r in changes) if name in recipes]
    among = [recipes["bn_x30"]] if "bn_x30" in recipes else []
    groups = (
        ("figure2", "Validation accuracy by steps (Figure 2)", list(recipes.values())),
        ("figure2-changes", "The same with a setting changed", [*plain, *changes]),
        ("figure2-ensemble", "The members of the ensemble", [*among, *members]),
    )
    wanted = (True, bool(changes), bool(members))
    return [
        drawing(name, title, _draw(rows, comparison.target, axis))
        for (name, title, rows), is_wanted in zip(groups, wanted, strict=True)
        if is_wanted
    ]


def by_crops(models: Sequence[Model]) -> Drawing | None:
    """Top-1 accuracy against the number of crops averaged, mean over seeds; None without any."""
    measured: list[tuple[str, NDArray[np.float64]]] = []
    for model in models:
        curves = [e.accuracy_by_crops for e in model.evaluations if e.accuracy_by_crops[1:]]
        alike = [curve for curve in curves if len(curve) == max(map(len, curves))]
        if alike:
            measured.append((model.name, np.array(alike).mean(0)))
    if not measured:
        return None
    with style():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        labels = []
        for number, (name, curve) in enumerate(measured):
            crops, top1 = curve[:, 0], 100 * curve[:, 1]
            colour = COLOURS[number % len(COLOURS)]
            dashes = _DASHES[number // len(COLOURS) % len(_DASHES)]
            marker = "o" if len(crops) <= 12 else None
            axes.plot(crops, top1, marker=marker, markersize=3, color=colour, linestyle=dashes)
            labels.append((crops[-1], top1[-1], textwrap.fill(name, _LABEL_WIDTH), colour))
        axes.set_xscale("log")
        ticks = sorted({int(crops) for _, curve in measured for crops in curve[:, 0]})
        # 1, 2, 3 ... 144: all of them would overlap.
        shown = [tick for tick in ticks if tick in (1, 2, 6, 12, 36, 72, 144)] or ticks
        axes.set_xticks(shown, [str(tick) for tick in shown], minor=False)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("crops of an image, averaged")
        _finish(axes, labels)
    return drawing("crops", "Accuracy by the number of crops", figure)


def inputs_of_a_layer(comparison: Figure3) -> Drawing | None:
    """Figure 1(b, c) for the real network: one layer of `inception` beside that of `bn_baseline`.

    The lines are the percentiles of the first channel, the band those (15th to 85th) of all
    channels. Of several layers in both it is the last, of several seeds the first that was looked
    into. None where no layer was in both.
    """
    names = ("inception", "bn_baseline")
    rows = {row.recipe: row for row in comparison.of(Kind.recipe)}
    runs = [run for name in names if name in rows for run in rows[name].runs if run.probes]
    found = {run.summary.recipe: run for run in reversed(runs)}
    layers = [dict.fromkeys(record.layer for _, record in run.probes) for run in found.values()]
    common = [layer for layer in layers[0] if layer in layers[-1]] if len(found) == 2 else []
    if not common:
        return None
    said = printable(textwrap.shorten(common[-1], 40))
    with style():
        figure = Figure(figsize=(8.0, 3.2), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2, sharey=True), names, strict=True):
            _draw_probe(axes, found[name], common[-1], _RECIPE_COLOUR[name])
            axes.set_title(FIGURE_3[name].title, fontsize=10)
            axes.set_xlabel("training steps of 32 images")
            axes.set_ylabel(f"input of {said}'s nonlinearity", parse_math=False)
            axes.label_outer()
    return drawing("probe", f"How the inputs of a layer move, as in Figure 1: {said}", figure)


def _draw_probe(axes: Axes, run: Run, layer: str, colour: str) -> None:
    looks = [(step, record) for step, record in run.probes if record.layer == layer]
    steps = [step for step, _ in looks]

    def drawn(name: str) -> NDArray[np.float64]:
        # A diverging run has values that no axis can hold: a gap.
        values = np.array([getattr(record, name) for _, record in looks], dtype=float)
        return np.where(np.abs(values) < _LARGEST_DRAWN, values, np.nan)

    axes.fill_between(steps, drawn("p15"), drawn("p85"), color=colour, alpha=0.15, lw=0)
    channel = [drawn(f"channel_p{percentile}") for percentile in FIGURE_1_PERCENTILES]
    percentile_lines(axes, steps, np.stack(channel, 1), colour)
    thousands(axes)
    frame(axes)


def _draw(rows: Sequence[Row], target: float | None, axis: str) -> Figure:
    with style():
        # At 100 dots an inch on a page: 800 pixels wide, which a README shows unscaled.
        figure = Figure(figsize=(8.0, 4.6), layout="constrained")
        axes = figure.add_subplot()
        labels = []
        drawn: dict[str, int] = {}
        for row in rows:
            if not any(run.steps for run in row.runs):
                continue
            number = drawn[row.recipe] = drawn.get(row.recipe, -1) + 1
            colour = _RECIPE_COLOUR.get(row.recipe) or COLOURS[len(drawn) % len(COLOURS)]
            end = _curve(axes, row, colour, _DASHES[number % len(_DASHES)])
            labels.append((*end, _label(row), colour))
            if row.steps is not None and target is not None:
                axes.plot(row.steps, 100 * target, "o", color=colour, markersize=7, zorder=3)
        if target is not None:
            axes.axhline(100 * target, color="0.45", linewidth=1.0, linestyle=(0, (2, 2)))
            labels.append((axes.get_xlim()[1], 100 * target, f"target {100 * target:.1f} %", "0.3"))
        axes.set_xscale(axis)
        thousands(axes)
        axes.set_xlabel("training steps of 32 images")
        axes.set_xlim(left=0 if axis == "linear" else None)
        axes.set_ylim(bottom=0)
        _finish(axes, labels)
    return figure


def _curve(axes: Axes, row: Row, colour: str, dashes: str) -> tuple[float, float]:
    """Draw mean and band, and each run that diverged; return where the line ends."""
    diverged = [run for run in row.runs if run.summary.status is RunStatus.diverged and run.steps]
    whole = [run for run in row.runs if run.steps and run not in diverged]
    end = (0.0, 0.0)
    for run in diverged:
        end = run.steps[-1], 100 * run.top1[-1]
        axes.plot(run.steps, 100 * np.array(run.top1), color=colour, linewidth=1.0)
        axes.plot(*end, "x", color=colour, markersize=9)
    steps = sorted(set.intersection(*(set(run.steps) for run in whole))) if whole else []
    if steps:
        top1 = 100 * np.array([_at(run, steps) for run in whole])
        axes.plot(steps, top1.mean(0), color=colour, linestyle=dashes, linewidth=1.6)
        if len(whole) > 1:
            axes.fill_between(steps, top1.min(0), top1.max(0), color=colour, alpha=0.15, lw=0)
        end = steps[-1], float(top1.mean(0)[-1])
    return end


def _at(run: Run, steps: Sequence[float]) -> list[float]:
    known = dict(zip(run.steps, run.top1, strict=True))
    return [known[step] for step in steps]


def _label(row: Row) -> str:
    count = len(row.runs)
    said = [row.title if count == 1 else f"{row.title}, {count} seeds"]
    diverged = [run.summary.diverged.step for run in row.runs if run.summary.diverged is not None]
    if diverged:
        said.append(f"diverged at {', '.join(f'{step:,}' for step in diverged)}")
    if not any(run.summary.started_learning for run in row.runs):
        said.append("did not start learning")
    elif row.steps is not None:
        said.append(f"target at {row.steps:,.0f}")
    lines = [line for part in said for line in textwrap.wrap(part, _LABEL_WIDTH)]
    return "\n".join(lines)


def _finish(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Frame and labels: each (x, y, text, colour) beside the plot, at the height of its line."""
    axes.set_ylabel("validation accuracy, top-1 (%)")
    frame(axes)
    lines = sum(label[2].count("\n") + 1.5 for label in labels)
    figure = axes.get_figure(root=True)
    if figure is not None:
        # As high as its labels, where these are many.
        figure.set_figheight(max(figure.get_figheight(), 0.8 + lines / 6.5))
        lines = 6.5 * (figure.get_figheight() - 0.8)
    low, high = axes.get_ylim()
    line = (high - low) / lines
    # From the top down, each below the one before; then up again where the lowest are too low.
    ordered = sorted(labels, key=lambda label: -label[1])
    heights = [line * (label[2].count("\n") + 1.5) for label in ordered]
    places: list[float] = []
    for label, height in zip(ordered, heights, strict=True):
        above = places[-1] - line * 0.3 if places else high + line
        places.append(min(label[1] + height / 2, above) - height)
    for number in reversed(range(len(places))):
        floor = low if number + 1 == len(places) else places[number + 1] + heights[number + 1]
        places[number] = max(places[number], floor)
    for (x, y, text, colour), place, height in zip(ordered, places, heights, strict=True):
        middle = (place + height / 2 - low) / (high - low)
        axes.annotate(
            text,
            (x, y),
            parse_math=False,
            xytext=(1.04, middle),
            textcoords="axes fraction",
            color=colour,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "alpha": 0.6,
                "relpos": (0, 0.5),
            },
        )
