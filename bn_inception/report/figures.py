"""BN Figure 2 for a user's runs, and Figure 1(b, c) for the real network."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

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
from bn_inception.report.comparison import Figure3, Kind, Row, evaluated_models
from bn_inception.report.curves import curves_of
from bn_inception.report.runs import Evaluation, Run

# The recipes in the paper's order, then the controls.
_RECIPE_COLOUR = dict(zip((*FIGURE_3, *CONTROLS), COLOURS, strict=True))
_DASHES = ("solid", "dashed", "dotted", "dashdot")
_LABEL_WIDTH = 26
"""Characters of a line of a label."""
_LABEL_LINE = 0.155
"""Inches, of 8 points."""
_LARGEST_DRAWN = 1e30

_Label = tuple[float, float, str, str]
"""Of a curve: where it ends, what it is called, and its colour."""


def figure2(comparison: Figure3, axis: str = "linear") -> list[Drawing]:
    """Accuracy against steps, on an `axis` that is linear or log.

    What was changed and the ensemble's members have figures of their own. A recipe has one colour,
    each change of it another.
    Its line is the mean over seeds, its band reaches from the lowest seed to the highest. A dot
    marks where it crosses the target. Without an evaluation there is no line.
    """
    recipes = {row.recipe: row for row in comparison.of(Kind.recipe, Kind.control)}
    changes, members = comparison.of(Kind.change), comparison.of(Kind.member)
    # Beside what was changed stands what it was changed from.
    changed = [
        recipes[name] for name in dict.fromkeys(r.recipe for r in changes) if name in recipes
    ]
    beside = [recipes["bn_x30"]] if "bn_x30" in recipes else []
    figures = [("figure2", "Validation accuracy by steps (Figure 2)", [*recipes.values()])]
    if changes:
        figures += [("figure2-changes", "The same with a setting changed", [*changed, *changes])]
    if members:
        figures += [("figure2-ensemble", "The members of the ensemble", [*beside, *members])]
    return [_drawn(*named, comparison.target, axis) for named in figures]


def _drawn(name: str, title: str, rows: Sequence[Row], target: float | None, axis: str) -> Drawing:
    with style():
        # At 100 dots an inch on a page: 800 pixels wide, which a README shows unscaled.
        figure = Figure(figsize=(8.0, 4.6), layout="constrained")
        axes = figure.add_subplot()
        labels: list[_Label] = []
        drawn: dict[str, int] = {}
        for row in rows:
            if row.plateau is None:
                continue
            number = drawn[row.recipe] = drawn.get(row.recipe, -1) + 1
            own = _RECIPE_COLOUR.get(row.recipe) or COLOURS[len(drawn) % len(COLOURS)]
            colour = COLOURS[(COLOURS.index(own) + number) % len(COLOURS)]
            # What the paper's figure has not is dashed: it may share a colour with what it has.
            number += row.recipe not in _RECIPE_COLOUR
            end = _curve(axes, row, colour, _DASHES[number % len(_DASHES)])
            labels.append((*end, _label(row), colour))
            if row.steps is not None and target is not None:
                axes.plot(row.steps, 100 * target, "o", color=colour, markersize=7, zorder=3)
        if target is not None:
            axes.axhline(100 * target, color="0.45", lw=1.0, ls=(0, (2, 2)))
            labels.append((axes.get_xlim()[1], 100 * target, f"target {100 * target:.1f} %", "0.3"))
        axes.set_xscale(axis)
        thousands(axes)
        axes.set_xlabel("training steps of 32 images")
        axes.set_ylabel("validation accuracy, top-1 (%)")
        axes.set_xlim(left=0 if axis == "linear" else None)
        axes.set_ylim(bottom=0)
        frame(axes)
        _name_ends(figure, axes, labels)
    return drawing(name, title, figure)


def _curve(axes: Axes, row: Row, colour: str, dashes: str) -> tuple[float, float]:
    """Draw mean and band, and each run that diverged; return where the last line ends."""
    diverged = [run for run in row.runs if run.summary.diverged is not None and run.steps]
    whole = [run for run in row.runs if run.steps and run not in diverged]
    end = 0.0, 0.0
    for run in diverged:
        end = run.steps[-1], 100 * run.top1[-1]
        axes.plot(run.steps, 100 * np.array(run.top1), color=colour, linewidth=1.0)
        axes.plot(*end, "x", color=colour, markersize=9)
    curves = curves_of(whole)
    if curves is not None:
        steps, top1 = curves.steps, 100 * curves.top1
        axes.plot(steps, top1.mean(0), color=colour, linestyle=dashes, linewidth=1.6)
        if len(whole) > 1:
            axes.fill_between(steps, top1.min(0), top1.max(0), color=colour, alpha=0.15, lw=0)
        end = steps[-1], float(top1.mean(0)[-1])
    return end


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
    return "\n".join(line for part in said for line in textwrap.wrap(part, _LABEL_WIDTH))


def _name_ends(figure: Figure, axes: Axes, labels: Sequence[_Label]) -> None:
    """Write each label beside the plot, as near to the height of its curve's end as all fit.

    The figure is as high as its labels are.
    """
    labels = sorted(labels, key=lambda label: label[1])
    heights = _LABEL_LINE * np.array([text.count("\n") + 1.5 for _, _, text, _ in labels])
    figure.set_figheight(max(figure.get_figheight(), 0.8 + heights.sum()))
    heights /= figure.get_figheight() - 0.8
    # Stacked from the bottom; what is added to these never falls, and is nearest to the ends.
    stacked = heights.cumsum() - heights / 2
    low, high = axes.get_ylim()
    ends = (np.array([y for _, y, _, _ in labels]) - low) / (high - low)
    raised = isotonic_regression(ends - stacked).x if labels else stacked
    places = stacked + raised.clip(0, max(0.0, 1 - heights.sum()))
    for (x, y, text, colour), place in zip(labels, places, strict=True):
        axes.annotate(
            text, (x, y), xytext=(1.04, place), textcoords="axes fraction", annotation_clip=False,
            va="center", color=colour, fontsize=8, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def by_crops(comparison: Figure3, ensembles: Sequence[Evaluation] = ()) -> Drawing | None:
    """Accuracy against the number of crops averaged, of each of Figure 4's models; None of none.

    Of a model's curves the longest are drawn, as their mean over seeds.
    """
    with style():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        axes = figure.add_subplot(xscale="log")
        labels: list[_Label] = []
        ticks = {1, 10}
        for name, entries in evaluated_models(comparison, ensembles):
            curves = [entry.accuracy_by_crops or [] for entry in entries]
            longest = max(map(len, curves))
            if longest < 2:
                continue
            crops, top1, _ = np.mean([curve for curve in curves if len(curve) == longest], 0).T
            number = len(labels)
            colour, dashes = COLOURS[number % len(COLOURS)], _DASHES[number // len(COLOURS) % 4]
            axes.plot(crops, 100 * top1, color=colour, linestyle=dashes)
            labels.append((crops[-1], 100 * top1[-1], textwrap.fill(name, _LABEL_WIDTH), colour))
            ticks.add(int(crops[-1]))
        axes.set_xticks(sorted(ticks), [f"{tick:,}" for tick in sorted(ticks)])
        axes.minorticks_off()
        axes.set_xlabel("crops of an image, averaged")
        axes.set_ylabel("validation accuracy, top-1 (%)")
        frame(axes)
        _name_ends(figure, axes, labels)
    if not labels:
        return None
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
    layers = [dict.fromkeys(record.layer for record in run.probes) for run in found.values()]
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
    looks = [record for record in run.probes if record.layer == layer]
    steps = [record.equivalent_steps for record in looks]

    def drawn(name: str) -> NDArray[np.float64]:
        # A diverging run has values that no axis can hold: a gap.
        values = np.array([getattr(record, name) for record in looks], dtype=float)
        return np.where(np.abs(values) < _LARGEST_DRAWN, values, np.nan)

    axes.fill_between(steps, drawn("p15"), drawn("p85"), color=colour, alpha=0.15, lw=0)
    channel = [drawn(f"channel_p{percentile}") for percentile in FIGURE_1_PERCENTILES]
    percentile_lines(axes, steps, np.stack(channel, 1), colour)
    thousands(axes)
    frame(axes)
