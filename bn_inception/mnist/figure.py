"""BN Figure 1: test accuracy by step, and how a sigmoid's input moves, without and with BN."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bn_inception.drawing import COLOURS, drawing, frame, percentile_lines, style, thousands
from bn_inception.files import write_bytes
from bn_inception.mnist.training import NETWORKS, Curve

_NAMES = ("Without BN", "With BN")
_LOWEST_ACCURACY = 0.7
"""Where Figure 1(a) begins."""


def figure1(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """Draw `figure1.png` and `figure1.svg` into `folder`; the same curves give the same bytes.

    `curves` are of both networks, evaluated at the same steps. Panel (a) has the mean over the
    seeds and the band from the lowest to the highest; (b) and (c) show the first seed.
    """
    with style():
        figure = Figure(figsize=(10.0, 3.6), layout="constrained")
        accuracy, *moves = figure.subplots(1, 3)
        for axes, letter, network, name, colour in zip(
            moves, "bc", NETWORKS, _NAMES, COLOURS, strict=False
        ):
            runs = [curve.evaluations for curve in curves if curve.network is network]
            steps = [evaluation.step for evaluation in runs[0]]
            found = np.array([[evaluation.test_accuracy for evaluation in run] for run in runs])
            accuracy.plot(steps, found.mean(0), color=colour, label=name)
            accuracy.fill_between(steps, found.min(0), found.max(0), color=colour, alpha=0.2, lw=0)
            inputs = np.array([evaluation.percentiles for evaluation in runs[0]])
            percentile_lines(axes, steps, inputs, colour)
            axes.set_title(f"({letter}) {name}")
            axes.set_ylabel("input to a sigmoid")
        accuracy.set_ylim(_LOWEST_ACCURACY, 1)
        accuracy.set_title("(a) test accuracy")
        accuracy.legend(loc="lower right", frameon=False)
        moves[1].sharey(moves[0])
        for axes in (accuracy, *moves):
            axes.set_xlabel("training steps")
            axes.set_xlim(left=0)
            thousands(axes)
            axes.tick_params(axis="x", labelsize=8)
            frame(axes)
    files = drawing("figure1", "Figure 1", figure).files
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]
