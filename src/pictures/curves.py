"""How a run went: its losses and metrics over the steps of training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .style import CYCLE, QUIET, picture

METRICS = ("top1", "top5", "map", "segm_map", "ridge_top1", "ridge_map")
SMOOTHED = 20  # points that the thick line of a loss averages over, at most


def draw_curves(csv: Path, path: Path, title: str, best: str) -> bool:
    """metrics.csv as losses (left) and metrics (right); the test is a dot at the end. best: the metric that checkpoints were
    chosen by. False where nothing was logged."""
    frame = pd.read_csv(csv) if csv.is_file() else pd.DataFrame()
    losses = [name for name in ("train/loss", "val/loss", "test/loss") if name in frame]
    metrics = [name for name in METRICS if f"val/{name}" in frame or f"test/{name}" in frame]
    panels = [panel for panel in (losses, metrics) if panel]
    if not panels:
        return False
    with picture(path, 4.2 * len(panels), 2.5, title) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for place, panel in zip(axes, panels, strict=True):
            for number, name in enumerate(panel):
                if panel is losses:
                    draw_line(place, frame, name, CYCLE[number], smooth=name == "train/loss")
                else:
                    for split in ("val", "test"):
                        draw_line(place, frame, f"{split}/{name}", CYCLE[number], smooth=False)
            place.set(xlabel="training step", ylabel="loss" if panel is losses else "metric, share of 1")
            place.grid(alpha=0.25, linewidth=0.5)
            place.legend(fontsize=7)
        if metrics:
            axes[-1].set_title(f"checkpoints are chosen by val/{best}", color=QUIET, loc="left")
            axes[-1].set_ylim(0, 1.02)
    return True


def draw_line(axes, frame: pd.DataFrame, name: str, colour: str, smooth: bool) -> None:
    if name not in frame:
        return
    points = frame[["step", name]].dropna()
    if smooth:
        axes.plot(points["step"], points[name], color=colour, alpha=0.3, linewidth=0.7)
        window = max(1, min(SMOOTHED, len(points) // 5))
        axes.plot(
            points["step"], points[name].rolling(window, center=True, min_periods=1).mean(), color=colour, label=name
        )
    elif name.startswith("test/"):
        axes.plot(points["step"], points[name], "D", color=colour, markersize=5, markeredgecolor="black",
                  markeredgewidth=0.6, label=f"{name} {points[name].iloc[-1]:.3f}")  # fmt: skip
    else:
        few = len(points) < 25
        axes.plot(points["step"], points[name], "o-" if few else "-", color=colour, markersize=3, label=name)
