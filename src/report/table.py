"""One row per run: the table that fit and compare print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from ..metrics.registry import METRICS, in_table_order, main_metric
from ..runs.folder import Run
from .terminal import WIDE, Column, print_table, say

COUNTS = ("map_classes", "samples")
ALARM = "bold red"


def runs_frame(runs: list[Run], split: str = "test") -> pd.DataFrame:
    """One row per run, with the metrics of one split.

    `data` is a letter per set of data: runs with equal letters were measured on the same bytes and the same samples.
    """
    rows = []
    letters: dict[tuple, str] = {}
    for run in runs:
        results, data = run.results(), run.read("data.json")
        same = (
            data["dataset"],
            data["fingerprint"],
            *(data["splits"][s]["keys_sha256"] for s in sorted(data["splits"])),
        )
        letter = letters.setdefault(same, chr(ord("A") + len(letters)) if len(letters) < 26 else str(len(letters)))
        metrics = results.metrics.get(split, {})
        rows.append(
            {
                "experiment": results.experiment,
                "cell": results.cell,
                "seed": results.seed,
                "data": letter,
                "dataset": data["dataset"],
                "fingerprint": data["fingerprint"][:8],
                "modalities": "+".join(data["spec"]["modalities"]),
                **{name: metrics[name] for name in [*in_table_order(metrics), *COUNTS] if name in metrics},
                "parameters": results.parameters,
                "flops_per_example": results.flops_per_example,
                "train_samples_per_second": results.train_samples_per_second,
                "peak_memory_bytes": results.peak_memory["bytes"],
                "wall_time_seconds": results.wall_time_seconds,
                "energy_joules": results.energy_joules,
                "run": str(run.folder),
            }
        )
    return pd.DataFrame(rows)


def print_runs(frame: pd.DataFrame, split: str = "test", wide: bool = False) -> None:
    """Print the table of some runs, and mark those whose data differ.

    Args:
        frame: of `runs_frame`.
        split: whose metrics it shows.
        wide: show all columns, not only those that people look at first and that fit the terminal.
    """
    several = frame["data"].nunique() > 1
    say(f"{split} split", "italic")
    print_table(runs_columns(frame, several), wide)
    if "map_classes" in frame:
        counted = sorted({int(c) for c in frame["map_classes"].dropna()})
        say(f"map: macro mean of average precision over the classes with a positive: {counted}", wrap=True)
    if several:
        say("These runs were measured on different data; do not compare across letters:", ALARM, wrap=True)
        for letter, group in frame.groupby("data"):
            first = group.iloc[0]
            say(
                f"  {letter}: {first['dataset']}, fingerprint {first['fingerprint']}, {first.get('samples', 0):,.0f} {split} "
                f"samples, {len(group)} run(s)"
            )
    for folder in frame["run"]:
        say(f"run: {folder}")


def runs_columns(frame: pd.DataFrame, several: bool) -> list[Column]:
    """The columns of the table of runs; `several` adds one that tells runs on different data apart."""
    metrics = in_table_order(map(str, frame))
    ranked_by = {main_metric(name for name in metrics if pd.notna(row[name])) for row in frame.to_dict("records")}

    def column(key: str, heading: str, show: Callable[[Any], str], rank: int = 0, name: bool = False) -> Column:
        values = frame[key] if key in frame else [None] * len(frame)
        return Column(key, heading, [show(value) for value in values], rank, name)

    found = [
        column("cell", "cell", str, name=True),
        column("modalities", "modalities", str, 4 if frame["modalities"].nunique() > 1 else WIDE, name=True),
        column("seed", "seed", str),
        *(column(name, name, METRICS[name].format, 0 if name in ranked_by else WIDE) for name in metrics),
        column("samples", "samples", lambda value: number(value, ",.0f"), WIDE),
        column("parameters", "parameters", scaled, 1),
        column("flops_per_example", "FLOPs", scaled, WIDE),
        column("train_samples_per_second", "samples/s", lambda value: number(value, ",.0f"), 2),
        column("peak_memory_bytes", "memory", lambda value: scaled(value, "B"), WIDE),
        column("wall_time_seconds", "time", lambda value: number(value, ",.0f") + " s", 3),
    ]
    if several:
        letters = [letter if letter == "A" else f"{letter} differs" for letter in frame["data"]]
        found.append(Column("data", "data", letters, style=ALARM))
    return found


def print_metrics(metrics: dict[str, float], title: str) -> None:
    """Print the metrics of one evaluation."""
    values = [METRICS[name].format(value) if name in METRICS else str(value) for name, value in metrics.items()]
    say(title)
    print_table([Column("metric", "metric", list(metrics), name=True), Column("value", "value", values)])


def number(value: float | None, form: str) -> str:
    return "-" if value is None or pd.isna(value) else format(value, form)


def scaled(value: float | None, unit: str = "") -> str:
    """1,234,567 as 1.23 M."""
    if value is None or pd.isna(value):
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"
