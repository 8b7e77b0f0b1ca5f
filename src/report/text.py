"""A comparison as text: for the terminal, Markdown and LaTeX, all from the same strings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from ..config.names import markdown_text, plain
from .comparison import Comparison, published_value
from .statistics import Interval
from .table import ALARM, number, scaled
from .terminal import WIDE, Column, print_table, say

CHANGES_SHOWN = 4  # of a config; the page has all
# In the terminal: headings that need no name, and the rank of columns that are not always shown
HEADINGS = {"difference_seeds": "difference over seeds", "difference_samples": "difference over samples"}
RANKS = {"budget": 2, "published": 3, "gap": 4, "parameters": 5, "train_samples_per_second": 6}
RANKS |= dict.fromkeys(("flops_per_example", "peak_memory_bytes", "wall_time_seconds", "energy_joules"), WIDE)


def columns(comparison: Comparison) -> list[Column]:
    """The table of variants; columns that no variant has a value for are left out."""
    metric, against = comparison.metric, comparison.variants[comparison.against].label
    variants = comparison.variants
    budgets = [str(variant.budget) for variant in variants]
    published = [published_value(variant.published, metric) for variant in variants]
    means = [variant.interval(metric).mean for variant in variants]
    pairs = [(number, comparison.against) for number in range(len(variants))]

    def cost(key: str, heading: str, show: Callable[[float | None], str]) -> Column:
        return Column(key, heading, [show(variant.cost(key)) for variant in variants])

    found = [
        Column("cell", "cell", [variant.label for variant in variants]),
        Column("seeds", "seeds", [str(len({record.seed for record in variant.records})) for variant in variants]),
        Column(metric, metric, [with_half(variant.interval(metric)) for variant in variants]),
        Column(
            "difference_seeds",
            f"minus {against}, over seeds",
            [with_half(comparison.by_seed.get(pair), "+.4f") for pair in pairs],
        ),
        Column("difference_samples", "over samples", [limits(comparison.by_sample.get(pair)) for pair in pairs]),
        Column(
            "published",
            "published",
            ["-" if version is None else f"{value:.3f} ({version})" for value, version in published],
        ),
        Column("gap", "gap", [number(mean - p, "+.3f") for mean, (p, _) in zip(means, published, strict=True)]),
        Column("budget", "budget", budgets if len(set(budgets)) > 1 else ["-"] * len(budgets)),
        cost("parameters", "parameters", scaled),
        cost("flops_per_example", "FLOPs", scaled),
        cost("train_samples_per_second", "samples/s", lambda value: number(value, ",.0f")),
        cost("peak_memory_bytes", "memory", lambda value: scaled(value, "B")),
        cost("wall_time_seconds", "time", lambda value: with_unit(value, "s")),
        cost("energy_joules", "energy", lambda value: scaled(value, "J")),
    ]
    return [column for column in found if set(column.values) != {"-"}]


def text_frame(comparison: Comparison) -> pd.DataFrame:
    """The table of variants with its headings."""
    return pd.DataFrame({plain(c.heading): [plain(value) for value in c.values] for c in columns(comparison)})


def with_half(interval: Interval | None, form: str = ".4f") -> str:
    """0.7046 ± 0.0750; the mean alone where there is only one seed."""
    if interval is None or pd.isna(interval.mean):
        return "-"
    mean = format(interval.mean, form)
    return mean if pd.isna(interval.half) else f"{mean} ± {interval.half:.4f}"


def limits(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}"


def with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.0f} {unit}"


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know to read the table."""
    found = [f"Intervals have 95 % confidence. {comparison.metric}: mean over seeds, Student's t"]
    if comparison.by_seed:
        found[0] += "; differences are between runs of equal seeds"
    if comparison.by_sample:
        found[0] += "; over samples: the seeds are fixed, test samples are resampled"
    hardware = sorted({record.hardware for record in comparison.records})
    if len(hardware) > 1:
        found.append(f"Runs were made on {'; '.join(hardware)}: samples/s, memory, time and energy are not comparable")
    energy = {tuple(record.results.energy_of) for record in comparison.records} - {()}
    if energy:
        found.append(f"Energy of training, as measured by {' and '.join('+'.join(e) for e in sorted(energy))}")
    return found


def print_comparison(comparison: Comparison, wide: bool = False) -> None:
    """The table of variants, and what was left out of it and why.

    Args:
        comparison: of `compare_runs`.
        wide: show all columns, not only those that people look at first and that fit the terminal.
    """
    say(comparison.summary, "italic", wrap=True)
    # the only interval where there is one seed; else the first to go
    ranks = RANKS | {"difference_samples": 7 if any(i.half > 0 for i in comparison.by_seed.values()) else 1}
    found = [
        replace(c, heading=HEADINGS.get(c.key, c.heading), rank=ranks.get(c.key, 0), name=c.key == "cell")
        for c in columns(comparison)
    ]
    hidden = print_table(found, wide)
    if len(comparison.variants) > 1:
        say(f"Differences are from {comparison.variants[comparison.against].label}", wrap=True)
    for note in notes(comparison):
        say(note, wrap=True)
    if hidden:
        say(f"Not shown: {', '.join(hidden)}: --wide shows all columns", wrap=True)
    if comparison.excluded:
        say(f"Left out, {len(comparison.excluded)} runs that cannot be compared with these:", ALARM)
    for excluded in comparison.excluded:
        say(f"  {excluded.folder}: {'; '.join(excluded.reasons)}")
        changes = list((excluded.changes or {}).items())
        for name, (this, other) in changes[:CHANGES_SHOWN]:
            say(f"    {name}: {this}, not {other}")
        if len(changes) > CHANGES_SHOWN:
            say(f"    and {len(changes) - CHANGES_SHOWN} more options; --html shows all")


def markdown(comparison: Comparison) -> str:
    """A table in GitHub's Markdown, with the notes below it."""
    frame = text_frame(comparison)
    lines = [list(map(str, frame)), ["---" if name == "cell" else "---:" for name in frame]]
    lines += [list(row) for row in frame.itertuples(index=False)]
    table = "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)
    below = [comparison.summary, *notes(comparison), *(f"left out: {line}" for line in left_out(comparison))]
    return f"{table}\n\n" + "".join(f"{markdown_text(line)}.\n" for line in below)


def latex(comparison: Comparison) -> str:
    """A tabular of booktabs, with the notes as comments above it."""
    frame = text_frame(comparison)
    above = [comparison.summary, *notes(comparison), *(f"left out: {line}" for line in left_out(comparison))]
    table = frame.to_latex(index=False, escape=True, column_format="l" + "r" * (frame.shape[1] - 1))
    return "".join(f"% {plain(line)}\n" for line in above) + table.replace("±", r"$\pm$")


def left_out(comparison: Comparison) -> list[str]:
    return [f"{excluded.folder} ({'; '.join(excluded.reasons)})" for excluded in comparison.excluded]
