"""How all pictures look: colours that colour-blind readers can tell apart, sizes, and one way to make and save a figure."""

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
# What is looked at: over pictures it shines, on white it darkens; both grow steadily in saturation
SHINE = LinearSegmentedColormap.from_list("shine", ["#5A2500", VERMILLION, ORANGE, "#FFF3B0"])
SHADE = LinearSegmentedColormap.from_list("shade", ["#FFFFFF", "#FBD9A0", ORANGE, VERMILLION])
DOTS = LinearSegmentedColormap.from_list("dots", ["#C9CDD2", ORANGE, VERMILLION, "#5A1500"])

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
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
DPI = 130
WIDTH = 9.5  # inches that a row of panels may take


@contextmanager
def picture(path: Path, width: float, height: float, title: str) -> Iterator[Figure]:
    """A figure in this style, saved as PNG at the end. width, height: in inches, the title comes on top of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height = max(height, 1.9) + 0.2 + 0.17 * (title.count("\n") + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        figure.suptitle(title, fontsize=10, x=0.01, ha="left", linespacing=1.35)
        yield figure
        figure.savefig(path)


def scale(figure: Figure, axes: Any, most: float, label: str, colours: LinearSegmentedColormap) -> None:
    """The legend of a map's colours, from 0 to `most`, beside some axes."""
    mappable = ScalarMappable(shares(most), colours)
    shrink = min(0.9, 3.5 / figure.get_figheight())  # of tall figures as long as a page shows at a time
    bar = figure.colorbar(mappable, ax=axes, shrink=shrink, anchor=(0, 1), aspect=22, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)  # pyrefly: ignore
    bar.set_ticks([most * share**2 for share in (0, 0.25, 0.5, 0.75, 1)])
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in bar.get_ticks()])
    bar.set_label(label)


def bare(axes: Axes) -> None:
    """No ticks and no frame, for pictures."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def label_last(axes: Any) -> None:
    """Of panels (rows, columns) that share their time axis only the last row is labelled."""
    for place in axes[:-1].flat:
        place.tick_params(labelbottom=False)
        place.set_xlabel("")


def shares(most: float) -> PowerNorm:
    """From weights to shares of a colour scale: their square roots, since attention and gradients are mostly small."""
    return PowerNorm(0.5, 0, most, clip=True)


def high(weights: np.ndarray) -> float:
    """The top of a colour scale: what one value in a hundred exceeds; of values that are nearly all 0 the largest."""
    return float(np.quantile(weights, 0.99)) or float(weights.max()) or 1.0
