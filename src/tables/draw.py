"""Pictures of `configs/suites/bytebench.yaml`: differences between architectures, damaged inputs, and what budgets buy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from ..pictures.style import BLUE, GREEN, ORANGE, PURPLE, QUIET, SKY, VERMILLION, picture
from .bytebench import ARCHITECTURES, Form, budgets, cells_of, difference, known_forms, load, metric_of, of_suite

COLOURS = dict(zip(ARCHITECTURES, (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY), strict=True))
Dots = dict[str, tuple[float, float, float]]  # architecture to a value and its interval


def pictures(folder: Path) -> dict[Path, bytes]:
    """The pictures that a folder of archives should have beside them."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, draw in {"differences": draw_differences, "stress": draw_stress, "budgets": draw_budgets}.items():
            path = Path(scratch, f"{name}.png")
            draw(path)
            if path.is_file():
                found[folder / path.name] = path.read_bytes()
    return found


def draw_differences(path: Path) -> None:
    """Every architecture minus the first of its row, with intervals."""

    def dots(form: Form) -> Dots:
        first, *others = cells_of(form)
        found = {name: difference(form, name, first) for name in others}
        columns = ("difference", "difference_low", "difference_high")
        return {name: tuple(100 * row[c] for c in columns) for name, row in found.items() if row}  # pyrefly: ignore

    title = "Points above the Perceiver (in scenes: the ResNet), with 95 % intervals for another training and test set"
    draw_dots(path, title, dots, line=0)


def draw_stress(path: Path) -> None:
    """What each architecture keeps of its metric at the hardest level of damage."""
    frame = load("stress")

    def dots(form: Form) -> Dots:
        cells = of_suite(frame, form.suite)
        found: Dots = {}
        for name in ARCHITECTURES:
            row = cells.get(form.prefix + name)
            if row and pd.notna(row["hardest"]):
                kept = 100 * row["hardest"] / row["clean"]
                found[name] = (kept, kept, kept)
        return found

    draw_dots(path, "What is left of the metric at the hardest level of damage, mean of all damages, in percent", dots)


def draw_dots(path: Path, title: str, dots: Callable[[Form], Dots], line: float | None = None) -> None:
    """A row for each form of data, a dot for each architecture."""
    rows = [(form, found) for form in known_forms() if (found := dots(form))]
    if not rows:
        return
    with picture(path, 7.5, 0.6 + 0.42 * len(rows), title) as figure:
        axes = figure.subplots()
        for row, (_, found) in enumerate(rows):
            for number, (name, (value, low, high)) in enumerate(found.items()):
                height = row + 0.11 * (number - (len(found) - 1) / 2)
                axes.plot([low, high], [height, height], color=COLOURS[name], linewidth=1.2)
                axes.plot(value, height, "o", color=COLOURS[name], markersize=4)
        for name, colour in COLOURS.items():
            if any(name in found for _, found in rows):
                axes.plot([], [], "o", color=colour, markersize=4, label=ARCHITECTURES[name])
        if line is not None:
            axes.axvline(line, color=QUIET, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [form.title for form, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.25, linewidth=0.5)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35 / len(rows)), ncols=6, fontsize=7)


def draw_budgets(path: Path) -> None:
    """The metric against the operations of training, a panel for each form of data."""
    of_form: dict[Form, list[tuple[str, list[dict]]]] = {}
    for form, name, rows in budgets():
        of_form.setdefault(form, []).append((name, rows))
    if not of_form:
        return
    columns = min(4, len(of_form))
    lines = -(-len(of_form) // columns)
    with picture(
        path,
        2.4 * columns,
        2.1 * lines,
        "Metric in percent against the operations of all forward passes of training, in units of 10¹²",
    ) as figure:
        panels = figure.subplots(lines, columns, squeeze=False).flat
        for panel, (form, curves) in zip(panels, of_form.items(), strict=False):
            for name, rows in curves:
                metric = metric_of(rows[0])
                cost = [row["flops_per_example"] * row["training_samples"] / 1e12 for row in rows]
                values, low, high = ([100 * row[metric + end] for row in rows] for end in ("", "_low", "_high"))
                panel.plot(cost, values, "o-", color=COLOURS[name], markersize=3, label=ARCHITECTURES[name])
                panel.fill_between(cost, low, high, color=COLOURS[name], alpha=0.12, linewidth=0)
            panel.set(title=form.title, xscale="log")
            panel.xaxis.set(
                major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter()
            )
            panel.grid(alpha=0.25, linewidth=0.5)
        for panel in list(panels):
            panel.set_visible(False)
        known = {name for curves in of_form.values() for name, _ in curves}
        handles = [
            Line2D([], [], color=COLOURS[name], marker="o", markersize=3, label=title)
            for name, title in ARCHITECTURES.items()
            if name in known
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=7)
