"""BN Figure 2 for a user's runs, and accuracy by the number of crops."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from bn_inception.paper.results import CONTROLS, FIGURE_3
from bn_inception.record.atomic import write_bytes
from bn_inception.record.summary import RunStatus
from bn_inception.report.comparison import Figure3
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.runs import Run

# Okabe and Ito's palette, told apart with every kind of colour blindness; its yellow is left out
# (too light on white). The recipes in the paper's order, then the controls, then any other.
_COLOURS = ("#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
# Runs of one recipe (seeds) share its colour.
_DASHES = ("solid", "dashed", "dashdot", "dotted")
# Beyond so many evaluations the markers merge into the line.
_MARKED_EVALUATIONS = 60


def figure2(runs: Sequence[Run], folder: Path, comparison: Figure3) -> tuple[Path, Path]:
    """Draw one curve a run into `folder`, as `figure2.png` and `figure2.svg`.

    The same runs give the same bytes. Runs without an evaluation have a line in the legend only.

    Args:
        runs: those compared.
        folder: must exist.
        comparison: gives the target line.

    Returns:
        The paths of the PNG and the SVG.

    Raises:
        UserError: the folder is not writable.
    """
    with _style():
        figure = _draw(runs, comparison.target)
        png = _render(figure, "png")
        svg = _render(figure, "svg")
    paths = folder / "figure2.png", folder / "figure2.svg"
    write_bytes(paths[0], png)
    write_bytes(paths[1], svg)
    return paths


def figure2_svg(runs: Sequence[Run], comparison: Figure3) -> str:
    """Figure 2 as an `<svg>` element to stand in an HTML page, without any reference outwards."""
    with _style():
        return _element(_render(_draw(runs, comparison.target), "svg"))


def accuracy_by_crops_svg(evaluations: Sequence[tuple[str, Evaluation]]) -> str | None:
    """Top-1 accuracy against the number of crops averaged, an `<svg>` element.

    Args:
        evaluations: (name, evaluation); those without two `accuracy_by_crops` have no curve.

    Returns:
        None where none has one.
    """
    measured = [(name, entry) for name, entry in evaluations if entry.accuracy_by_crops[1:]]
    if not measured:
        return None
    with _style():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, entry) in enumerate(measured):
            crops, top1, _ = zip(*entry.accuracy_by_crops, strict=True)
            axes.plot(
                crops,
                [100 * accuracy for accuracy in top1],
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)],
                marker="o",
                markersize=3,
                linewidth=1.6,
                label=name if entry.statistics is None else f"{name} ({entry.statistics})",
            )
        axes.set_xscale("log")
        ticks = sorted({crops for _, entry in measured for crops, _, _ in entry.accuracy_by_crops})
        # 1, 2, 3 ... 144: all of them would overlap.
        shown = [tick for tick in ticks if tick in (1, 2, 6, 12, 36, 72, 144)] or ticks
        axes.set_xticks(shown, [str(tick) for tick in shown], minor=False)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("crops of an image, averaged")
        axes.set_ylabel("validation accuracy, top-1 (%)")
        axes.grid(color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        return _element(_render(figure, "svg"))


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context():
        # The defaults, not the user's matplotlibrc; the salt makes the SVG's ids reproducible.
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "bn-inception"
        yield


def _element(svg: bytes) -> str:
    text = svg.decode("utf-8")
    # The XML declaration, the DOCTYPE and the metadata name files elsewhere.
    text = text[text.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL).strip()


def _draw(runs: Sequence[Run], target: float | None) -> Figure:
    # At 100 dots an inch on a page: 800 pixels wide, which a README shows unscaled.
    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    axes = figure.add_subplot()
    order = list(dict.fromkeys([*FIGURE_3, *CONTROLS, *(run.summary.recipe for run in runs)]))
    runs = sorted(runs, key=lambda run: (order.index(run.summary.recipe), run.summary.seed))
    repeated = Counter(run.summary.recipe for run in runs)
    drawn: Counter[str] = Counter()
    for run in runs:
        recipe = run.summary.recipe
        (line,) = axes.plot(
            run.steps,
            [100 * top1 for top1 in run.top1],
            color=_COLOURS[order.index(recipe) % len(_COLOURS)],
            linestyle=_DASHES[drawn[recipe] % len(_DASHES)],
            linewidth=1.6,
            marker="o" if len(run.steps) <= _MARKED_EVALUATIONS else None,
            markersize=3,
            label=_label(run, repeated[recipe] > 1),
        )
        drawn[recipe] += 1
        if run.summary.status is RunStatus.diverged and run.steps:
            axes.plot(
                run.steps[-1:], [100 * run.top1[-1]], "x", color=line.get_color(), markersize=9
            )
    if target is not None:
        axes.axhline(
            100 * target,
            color="0.45",
            linewidth=1.0,
            linestyle=(0, (2, 2)),
            label=f"target {100 * target:.1f} %",
        )
    axes.set_xlabel("training steps of 32 images")
    axes.set_ylabel("validation accuracy, top-1 (%)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _label(run: Run, repeated: bool) -> str:
    result = FIGURE_3.get(run.summary.recipe)
    label = run.summary.recipe if result is None else result.title
    if repeated:
        label += f", seed {run.summary.seed}"
    if run.summary.diverged is not None:
        label += f"\n(diverged at {run.summary.diverged.step:,})"
    elif not run.steps:
        label += "\n(no evaluation)"
    elif not run.summary.started_learning:
        label += "\n(did not start learning)"
    return label


def _render(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # Neither a date nor the version of the software: equal runs, equal files.
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
