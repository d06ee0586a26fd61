"""How figures look, whatever they show, and their files: the same figure gives the same bytes."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from bn_inception.paper.results import FIGURE_1_PERCENTILES

# Okabe and Ito's palette, for every kind of colour blindness, less its yellow (too light).
COLOURS = ("#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Drawing:
    """A figure: the name of its files without an ending, what it shows, and the files."""

    name: str
    title: str
    png: bytes
    svg: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """The files by their names."""
        return {f"{self.name}.png": self.png, f"{self.name}.svg": self.svg}

    @property
    def element(self) -> str:
        """An `<svg>` to stand in an HTML page, without any reference outwards."""
        # The XML declaration, the DOCTYPE and the metadata name files elsewhere.
        text = self.svg.decode("utf-8")
        return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


@contextmanager
def style() -> Iterator[None]:
    """Draw with matplotlib's defaults, not the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "bn-inception"  # makes the SVG's ids reproducible
        yield


def drawing(name: str, title: str, figure: Figure) -> Drawing:
    """A figure's files, without a date or the version of the software."""
    files = []
    with style():
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
            figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
            files.append(buffer.getvalue())
    return Drawing(name, title, *files)


def frame(axes: Axes) -> None:
    """A pale grid, and lines on the left and below alone."""
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def thousands(axes: Axes) -> None:
    """Write the numbers of the x axis, steps, as 31,000."""
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def percentile_lines(
    axes: Axes, steps: Sequence[float], values: NDArray[np.float64], colour: str
) -> None:
    """BN Figure 1(b, c): lines of the 15th, 50th and 85th percentile, named at their ends.

    `steps` are N, `values` (N, 3); NaN is a gap.
    """
    for percentile, line in zip(FIGURE_1_PERCENTILES, values.T, strict=True):
        axes.plot(steps, line, color=colour, linewidth=1.2)
        if not np.isnan(line[-1]):
            axes.annotate(
                f"{percentile}th", (steps[-1], line[-1]), xytext=(4, 0),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
