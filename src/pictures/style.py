"""The style of all pictures: a colour-blind safe palette, sizes, and helpers for figures and axes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

# Okabe & Ito's colours
BLUE, VERMILLION, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7"
RIGHT, WRONG, INK, QUIET = BLUE, VERMILLION, "#222222", "#8A8A8A"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
# Colour maps for weights: over a dark image, behind a curve or text on white, and for points
OVERLAY = LinearSegmentedColormap.from_list("overlay", ["#5A2500", VERMILLION, ORANGE, "#FFF3B0"])
BACKGROUND = LinearSegmentedColormap.from_list("background", ["#FFFFFF", "#FBD9A0", ORANGE, VERMILLION])
POINTS = LinearSegmentedColormap.from_list("points", ["#C9CDD2", ORANGE, VERMILLION, "#5A1500"])

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.titlepad": 4,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=CYCLE),
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $5
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
DPI = 130
WIDTH = 9.5  # of a row of panels, at most, in inches


@contextmanager
def picture(path: Path, width: float, height: float, title: str) -> Iterator[Figure]:
    """Yields a figure in this style and saves it as PNG. Width and height are in inches, without the title."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height = max(height, 1.9) + 0.2 + 0.17 * (title.count("\n") + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        figure.suptitle(title, fontsize=10, x=0.01, ha="left", linespacing=1.35)
        yield figure
        figure.savefig(path)


def add_colourbar(figure: Figure, axes: Any, vmax: float, label: str, colours: LinearSegmentedColormap) -> None:
    """Adds the colour bar of a map, from 0 to `vmax`, beside the axes."""
    mappable = ScalarMappable(colour_norm(vmax), colours)
    shrink = min(0.9, 3.5 / figure.get_figheight())  # fits on the screen even if the figure is taller
    bar = figure.colorbar(mappable, ax=axes, shrink=shrink, anchor=(0, 1), aspect=22, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)  # pyrefly: ignore
    bar.set_ticks([vmax * share**2 for share in (0, 0.25, 0.5, 0.75, 1)])
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in bar.get_ticks()])
    bar.set_label(label)


def hide_axes(axes: Axes) -> None:
    """Removes ticks and frame."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def label_bottom_row(axes: Any) -> None:
    """Removes the x labels of all panels (rows, columns) but those in the last row."""
    for panel in axes[:-1].flat:
        panel.tick_params(labelbottom=False)
        panel.set_xlabel("")


def colour_norm(vmax: float) -> PowerNorm:
    """A square-root colour scale from 0 to `vmax`, since most attention weights and gradients are small."""
    return PowerNorm(0.5, 0, vmax, clip=True)


def robust_max(weights: np.ndarray) -> float:
    """The 99th percentile, as the top of a colour scale; the maximum if that is 0."""
    return float(np.quantile(weights, 0.99)) or float(weights.max()) or 1.0
