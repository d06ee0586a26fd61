"""BN Figure 1: test accuracy by step, and how a sigmoid's input moves, without and with BN."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bn_inception.drawing import COLOURS, drawing, frame, percentile_lines, style, thousands
from bn_inception.files import write_bytes
from bn_inception.mnist.network import NETWORKS, Normalization
from bn_inception.mnist.training import Curve

_NAMES = {Normalization.plain: "Without BN", Normalization.bn: "With BN"}
_COLOURS = dict(zip(NETWORKS, COLOURS, strict=False))
_LOWEST_ACCURACY = 0.7
"""Where Figure 1(a) begins."""


def figure1(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """Draw `figure1.png` and `figure1.svg` into `folder`; the same curves give the same bytes.

    Panel (a) has the mean over the seeds and the band from the lowest to the highest; (b) and (c)
    show the first seed.

    Args:
        curves: of both networks, evaluated at the same steps.
        folder: must exist.

    Raises:
        UserError: the folder cannot be written.
    """
    with style():
        figure = Figure(figsize=(10.0, 3.6), layout="constrained")
        accuracy, *moves = figure.subplots(1, 3)
        _draw_accuracy(accuracy, curves)
        for axes, network, letter in zip(moves, NETWORKS, "bc", strict=True):
            first = next(curve for curve in curves if curve.network is network)
            _draw_percentiles(axes, first, f"({letter}) {_NAMES[network]}")
        moves[1].sharey(moves[0])
    files = drawing("figure1", "Figure 1", figure).files
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


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
    _steps(axes)


def _draw_percentiles(axes: Axes, curve: Curve, title: str) -> None:
    steps = [evaluation.step for evaluation in curve.evaluations]
    values = np.array([evaluation.percentiles for evaluation in curve.evaluations])
    percentile_lines(axes, steps, values, _COLOURS[curve.network])
    axes.set_title(title)
    axes.set_ylabel("input to a sigmoid")
    _steps(axes)


def _steps(axes: Axes) -> None:
    axes.set_xlabel("training steps")
    axes.set_xlim(left=0)
    thousands(axes)
    axes.tick_params(axis="x", labelsize=8)
    frame(axes)
