"""Training curves: losses and metrics over the steps of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..metrics.registry import in_table_order
from ..runs.curves import read_curves
from .style import CYCLE, QUIET, picture

SMOOTHING = 20  # points in the moving average of the training loss, at most


def draw_curves(csv: Path, path: Path, title: str, best: str) -> bool:
    """Draws the losses (left) and metrics (right) of a metrics.csv; test results are markers at the end.

    Args:
        csv: the metrics.csv.
        path: PNG to write.
        title: title of the figure.
        best: the metric that best.ckpt is chosen by.

    Returns:
        Whether there was anything to draw.
    """
    try:
        frame = read_curves(csv)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        frame = pd.DataFrame()
    losses = [name for name in ("train/loss", "val/loss", "test/loss") if name in frame]
    logged = {str(column).partition("/")[2] for column in frame if str(column).startswith(("val/", "test/"))}
    metrics = [name for name in in_table_order(logged) if name != "loss"]
    panels = [panel for panel in (losses, metrics) if panel]
    if not panels:
        return False
    with picture(path, 4.2 * len(panels), 2.5, title) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, names in zip(axes, panels, strict=True):
            for number, name in enumerate(names):
                if names is losses:
                    draw_line(panel, frame, name, CYCLE[number], smooth=name == "train/loss")
                else:
                    for split in ("val", "test"):
                        draw_line(panel, frame, f"{split}/{name}", CYCLE[number], smooth=False)
            panel.set(xlabel="training step", ylabel="loss" if names is losses else "metric")
            panel.grid(alpha=0.25, linewidth=0.5)
            panel.legend(fontsize=7)
        if metrics:
            axes[-1].set_title(f"best checkpoint chosen by val/{best}", color=QUIET, loc="left")
            axes[-1].set_ylim(0, 1.02)
    return True


def draw_line(axes, frame: pd.DataFrame, name: str, colour: str, smooth: bool) -> None:
    if name not in frame:
        return
    points = frame[["step", name]].dropna()
    if points.empty:
        return
    if smooth:
        axes.plot(points["step"], points[name], color=colour, alpha=0.3, linewidth=0.7)
        window = max(1, min(SMOOTHING, len(points) // 5))
        axes.plot(
            points["step"], points[name].rolling(window, center=True, min_periods=1).mean(), color=colour, label=name
        )
    elif name.startswith("test/"):
        axes.plot(points["step"], points[name], "D", color=colour, markersize=5, markeredgecolor="black",
                  markeredgewidth=0.6, label=f"{name} {points[name].iloc[-1]:.3f}")  # fmt: skip
    else:
        few = len(points) < 25
        axes.plot(points["step"], points[name], "o-" if few else "-", color=colour, markersize=3, label=name)
