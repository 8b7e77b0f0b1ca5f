"""One row per run: the table that fit and compare print."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table

from ..metrics.registry import METRICS, in_table_order
from ..runs.folder import Run

COUNTS = ("map_classes", "samples")


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


def print_runs(runs: list[Run], split: str = "test") -> pd.DataFrame:
    """Print the table of some runs, mark those whose data differ, and return it."""
    frame = runs_frame(runs, split)
    several = frame["data"].nunique() > 1
    table = Table(title=f"{split} split", title_justify="left")
    metrics = in_table_order(map(str, frame))
    table.add_column("cell", overflow="fold")
    for heading in ["modalities", "seed", *metrics, "samples", "parameters", "FLOPs", "samples/s", "memory", "time"]:
        table.add_column(heading, justify="left" if heading == "modalities" else "right", overflow="fold")
    if several:
        table.add_column("data")
    for row in frame.to_dict("records"):
        cells = [row["cell"], row["modalities"], str(row["seed"])]
        cells += [METRICS[name].format(row[name]) for name in metrics]
        cells += [number(row.get("samples"), ",.0f"), scaled(row["parameters"]), scaled(row["flops_per_example"])]
        cells += [number(row["train_samples_per_second"], ",.0f"), scaled(row["peak_memory_bytes"], "B")]
        cells += [number(row["wall_time_seconds"], ",.0f") + " s"]
        if several:
            cells.append(row["data"] if row["data"] == "A" else f"[bold red]{row['data']} differs[/]")
        table.add_row(*cells)
    out = console()
    out.print(table)
    if "map_classes" in frame:
        counted = sorted({int(c) for c in frame["map_classes"].dropna()})
        out.print(f"map: macro mean of average precision over the classes with a positive: {counted}", highlight=False)
    if several:
        out.print("[bold red]These runs were measured on different data; do not compare across letters:[/]")
        for letter, group in frame.groupby("data"):
            first = group.iloc[0]
            out.print(
                f"  {letter}: {first['dataset']}, fingerprint {first['fingerprint']}, {first.get('samples', 0):,.0f} {split} "
                f"samples, {len(group)} run(s)",
                highlight=False,
            )
    for folder in frame["run"]:
        out.print(f"run: {folder}", highlight=False, soft_wrap=True)
    return frame


def print_metrics(metrics: dict[str, float], title: str) -> None:
    """Print the metrics of one evaluation."""
    table = Table("metric", "value")
    for name, value in metrics.items():
        table.add_row(name, METRICS[name].format(value) if name in METRICS else str(value))
    console().print(title, highlight=False, soft_wrap=True)
    console().print(table)


def console() -> Console:
    """The terminal, or a wide page in a log, so that every row stays on one line."""
    found = Console()
    return found if found.is_terminal else Console(width=160)


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
