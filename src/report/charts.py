"""A comparison as images, for W&B: the page's charts in matplotlib."""

from __future__ import annotations

import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .comparison import Comparison
from .html import page_data


def charts(comparison: Comparison) -> dict[str, Figure]:
    """By name: every seed; the main metric over training, else the loss; against parameters, FLOPs and time; predictions."""
    matplotlib.rcParams["text.parse_math"] = False  # a variant may be called $5
    data = page_data(comparison)
    found = {"seeds": seeds_chart(data)}
    names = [
        name for name in (f"val/{data['metric']}", "train/loss") if any(name in c["curves"] for c in data["cells"])
    ]
    if names:
        found["training"] = training_chart(data, names[0])
    for cost in ("parameters", "flops_per_example", "wall_time_seconds"):
        found[f"against_{cost}"] = cost_chart(data, cost)
    predictions = data["predictions"]
    if predictions and predictions["kind"] == "confusion":
        for i, table in predictions["cells"].items():
            shares = np.asarray(table) / np.maximum(np.asarray(predictions["totals"][i])[:, None], 1)
            name = re.sub(r"[^\w.-]+", "_", data["cells"][i]["name"])  # W&B makes it a file's
            found[f"confusion_{name}"] = confusion_chart(shares, predictions["classes"])
    elif predictions:
        found["classes"] = classes_chart(data, predictions)
    return found


def seeds_chart(data: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(8, 1 + 0.35 * len(data["cells"])), layout="constrained")
    axes = figure.subplots()
    for row, cell in enumerate(data["cells"]):
        mean, low, high = cell["interval"]
        if low is not None:
            axes.plot([low, high], [row, row], color=f"C{row}")
        axes.plot([mean], [row], "|", markersize=12, color=f"C{row}")
        axes.plot([value for _, value in cell["values"]], [row] * len(cell["values"]), "o", alpha=0.5, color=f"C{row}")
    axes.set_yticks(range(len(data["cells"])), [cell["name"] for cell in data["cells"]])
    axes.invert_yaxis()
    axes.set_xlabel(f"{data['metric']}, {data['split']} split; mean, 95 % interval, every seed")
    return figure


def training_chart(data: dict[str, Any], name: str) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, cell in enumerate(data["cells"]):
        if name in cell["curves"]:
            seen, mean, low, high = cell["curves"][name]
            axes.plot(seen, mean, color=f"C{number}", label=cell["name"], marker="." if len(seen) == 1 else None)
            axes.fill_between(seen, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
    axes.set(xlabel="training samples", ylabel=f"{name}; mean, lowest and highest seed")
    axes.legend(fontsize="small")
    return figure


def cost_chart(data: dict[str, Any], cost: str) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, cell in enumerate(data["cells"]):
        mean, low, high = cell["interval"]
        if cell["costs"][cost] is not None:
            half = None if low is None else [(high - low) / 2]
            axes.errorbar([cell["costs"][cost]], [mean], half, fmt="o", color=f"C{number}", label=cell["name"])
    axes.set(xscale="log", xlabel=cost.replace("_", " "), ylabel=f"{data['metric']}, 95 % interval")
    axes.legend(fontsize="small")
    return figure


def confusion_chart(shares: np.ndarray, classes: list[str]) -> Figure:
    size = 2 + 0.35 * len(classes)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def classes_chart(data: dict[str, Any], predictions: dict[str, Any]) -> Figure:
    classes = predictions["classes"]
    figure = Figure(figsize=(8, 1 + 0.2 * len(classes)), layout="constrained")
    axes = figure.subplots()
    for i, values in predictions["cells"].items():
        values = [np.nan if value is None else value for value in values]
        axes.plot(values, range(len(classes)), "o", alpha=0.7, color=f"C{i}", label=data["cells"][i]["name"])
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("average precision, mean over seeds")
    axes.legend(fontsize="small")
    return figure
