"""BN Figure 1: test accuracy by step, and how a sigmoid's input moves, without and with BN."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bn_inception.files import write_bytes
from bn_inception.mnist.network import NETWORKS, Normalization
from bn_inception.mnist.training import PERCENTILES, Curve

_NAMES = {Normalization.plain: "Without BN", Normalization.bn: "With BN"}
# Of Okabe and Ito's palette, told apart with every kind of colour blindness.
_COLOURS = {Normalization.plain: "#000000", Normalization.bn: "#0072B2"}
_LOWEST_ACCURACY = 0.7
"""Where Figure 1(a) begins."""


def figure1(curves: Sequence[Curve], folder: Path) -> tuple[Path, Path]:
    """Draw `figure1.png` and `figure1.svg` into `folder`; the same curves give the same bytes.

    Panel (a) has the mean over the seeds and the band from the lowest to the highest; (b) and (c)
    show the first seed.

    Args:
        curves: of both networks, evaluated at the same steps.
        folder: must exist.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = folder / "figure1.png", folder / "figure1.svg"
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "bn-inception"
        figure = Figure(figsize=(10.0, 3.6), layout="constrained")
        accuracy, *moves = figure.subplots(1, 3)
        _draw_accuracy(accuracy, curves)
        for axes, network, letter in zip(moves, NETWORKS, "bc", strict=True):
            first = next(curve for curve in curves if curve.network is network)
            _draw_percentiles(axes, first, f"({letter}) {_NAMES[network]}")
        moves[1].sharey(moves[0])
        for path, metadata in zip(
            paths, ({"Software": None}, {"Date": None, "Creator": None}), strict=True
        ):
            content = BytesIO()
            figure.savefig(content, format=path.suffix[1:], dpi=150, metadata=metadata)
            write_bytes(path, content.getvalue())
    return paths


def _draw_accuracy(axes: Axes, curves: Sequence[Curve]) -> None:
    for network in NETWORKS:
        runs = [curve.evaluations for curve in curves if curve.network is network]
        steps = [evaluation.step for evaluation in runs[0]]
        accuracies = np.array([[evaluation.test_accuracy for evaluation in run] for run in runs])
        axes.plot(steps, accuracies.mean(0), color=_COLOURS[network], label=_NAMES[network])
        axes.fill_between(
            steps, accuracies.min(0), accuracies.max(0), color=_COLOURS[network], alpha=0.2, lw=0
        )
    axes.set_ylim(_LOWEST_ACCURACY, 1)
    axes.set_title("(a) test accuracy")
    axes.legend(loc="lower right", frameon=False)
    _common(axes)


def _draw_percentiles(axes: Axes, curve: Curve, title: str) -> None:
    steps = [evaluation.step for evaluation in curve.evaluations]
    values = np.array([evaluation.percentiles for evaluation in curve.evaluations])
    for number, percentile in enumerate(PERCENTILES):
        axes.plot(steps, values[:, number], color=_COLOURS[curve.network], lw=1.2)
        axes.annotate(
            f"{percentile}th",
            (steps[-1], values[-1, number]),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_title(title)
    axes.set_ylabel("input to a sigmoid")
    _common(axes)


def _common(axes: Axes) -> None:
    axes.set_xlabel("training steps")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
