"""A comparison as text: for the terminal, Markdown and LaTeX, all from the same strings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from ..config.names import csv_text, markdown_text, plain
from ..stats.intervals import Estimate
from .comparison import Comparison, published_value
from .differences import KINDS, shortened
from .table import ALARM, number, scaled
from .terminal import WIDE, Column, print_table, say

CHANGES_SHOWN = 4  # of a config; the page has all
LINES_SHOWN = 8  # of one class of differences
# The rank of columns that are not always shown in the terminal
RANKS = {"verdict": 1, "rank": 7, "budget": 2, "published": 3, "gap": 4, "parameters": 5, "train_samples_per_second": 6}
RANKS |= dict.fromkeys(("flops_per_example", "peak_memory_bytes", "wall_time_seconds", "energy_joules"), WIDE)


def columns(comparison: Comparison) -> list[Column]:
    """The table of variants; columns that no variant has a value for are left out."""
    metric, variants = comparison.metric, comparison.variants
    budgets = [str(variant.budget) for variant in variants]
    published = [published_value(variant.published, metric) for variant in variants]
    means = [variant.interval(metric).mean for variant in variants]
    pairs = [(number, comparison.reference) for number in range(len(variants))]
    verdicts = [comparison.verdicts.get(pair) for pair in pairs]
    ranks = [str(high) if high == low else f"{high}-{low}" for high, low in comparison.ranks]

    def cost(key: str, heading: str, show: Callable[[float | None], str]) -> Column:
        return Column(key, heading, [show(variant.cost(key)) for variant in variants])

    found = [
        Column("cell", "cell", [variant.label for variant in variants]),
        Column("seeds", "seeds", [str(len({record.seed for record in variant.records})) for variant in variants]),
        Column(metric, metric, [with_half(variant.interval(metric)) for variant in variants]),
        Column(
            "difference",
            f"minus {variants[comparison.reference].label}",
            [with_half(comparison.pairs.get(pair), "+.4f") for pair in pairs],
        ),
        Column("verdict", "verdict", [found.word if found else "-" for found in verdicts]),
        Column("rank", "rank", ranks if len(variants) > 1 else ["-"]),
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


def with_half(interval: Estimate | None, form: str = ".4f") -> str:
    """0.7046 ± 0.0750; the mean alone where there is only one seed."""
    if interval is None or pd.isna(interval.mean):
        return "-"
    mean = format(interval.mean, form)
    return mean if pd.isna(interval.half) else f"{mean} ± {interval.half:.4f}"


def with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.0f} {unit}"


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know to read the table."""
    return [*intervals_of(comparison), *verdict_lines(comparison), *measurement_lines(comparison)]


def measurement_lines(comparison: Comparison) -> list[str]:
    """What costs were measured on and with."""
    found = []
    hardware = sorted({record.hardware for record in comparison.records})
    if len(hardware) > 1:
        found.append(f"Runs were made on {'; '.join(hardware)}: samples/s, memory, time and energy are not comparable")
    energy = {tuple(record.results.energy_of) for record in comparison.records} - {()}
    if energy:
        found.append(f"Energy of training, as measured by {' and '.join('+'.join(e) for e in sorted(energy))}")
    return found


def intervals_of(comparison: Comparison) -> list[str]:
    """What the intervals are of, and what they cannot say."""
    estimates = [variant.interval(comparison.metric) for variant in comparison.variants]
    sampled = [found for found in estimates if found.clusters]
    samples = comparison.records[0].samples(comparison.split) or 0
    if len(sampled) == len(estimates):
        clusters = sampled[0].clusters
        drawn = f"another {comparison.split} set ({samples:,.0f} samples" + (
            f" in {clusters:,} clusters)" if clusters < samples and comparison.records[0].fold is None else ")"
        )
        of = f"another training and {drawn}"
    else:
        of = f"another training, on this {comparison.split} set: not all runs kept predictions of the same samples"
    found = [f"Intervals have 95 % confidence. {comparison.metric}: for {of}"]
    alone = [v.label for v, e in zip(comparison.variants, estimates, strict=True) if e.seeds < 2]
    if alone:
        found.append(
            f"One seed ({shortened(alone)}): its interval is of this trained model alone; what another training would give, "
            "and so whether a variant is better, cannot be known from it"
        )
    return found


def verdict_lines(comparison: Comparison) -> list[str]:
    """Verdicts in words: which variants the data do not separate, and what it would take; claims."""
    found = []
    if comparison.verdicts:
        tests = len(comparison.verdicts) // 2
        found.append(
            f"Verdicts hold together at 5 % over {'one pair' if tests == 1 else f'all {tests:,} pairs'} (Holm)"
        )
        groups = [" = ".join(group) for group in comparison.ties]
        found.append(
            f"From the best: {', '.join(groups[:LINES_SHOWN])}" + (" and more" if len(groups) > LINES_SHOWN else "")
        )
        reference = comparison.variants[comparison.reference].label
        lacking: dict[str, list[str]] = {}
        for number, variant in enumerate(comparison.variants):
            verdict = comparison.verdicts.get((number, comparison.reference))
            if verdict and verdict.why:
                lacking.setdefault(verdict.why, []).append(variant.label)
        found += [f"To separate {shortened(names)} from {reference}: {why}" for why, names in lacking.items()]
    return found + [f"Claim {judged.line}" for judged in comparison.claims]


def differing_lines(comparison: Comparison) -> list[str]:
    """Whatever differs between the runs, by class; harmless differences by name alone."""
    found = []
    for kind in KINDS:
        listed = [each for each in comparison.differing if each.kind == kind]
        if listed and kind == "harmless":
            found.append(f"Differs, {kind}: {shortened([each.name for each in listed], LINES_SHOWN)}")
        elif listed:
            found.append(f"Differs, {kind}:")
            found += [f"  {each.line}" for each in listed[:LINES_SHOWN]]
            if len(listed) > LINES_SHOWN:
                found.append(f"  and {len(listed) - LINES_SHOWN} more; --html shows all")
    return found


def print_comparison(comparison: Comparison, wide: bool = False) -> None:
    """The table of variants, and what was left out of it and why.

    Args:
        comparison: of `compare_runs`.
        wide: show all columns, not only those that people look at first and that fit the terminal.
    """
    say(comparison.summary, "italic", wrap=True)
    found = [replace(c, rank=RANKS.get(c.key, 0), name=c.key == "cell") for c in columns(comparison)]
    found = [replace(c, heading=c.key) if c.key == "difference" else c for c in found]  # its reference has a line
    hidden = print_table(found, wide)
    if len(comparison.variants) > 1:
        say(f"Differences are from {comparison.variants[comparison.reference].label}", wrap=True)
    for note in notes(comparison):
        say(note, wrap=True)
    for line in differing_lines(comparison):
        say(line, ALARM if line == "Differs, costs fairness:" else "")
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
    return f"{table}\n\n" + "".join(f"{markdown_text(line.strip())}.\n" for line in lines_beside(comparison))


def latex(comparison: Comparison) -> str:
    """A tabular of booktabs, with the notes as comments above it."""
    frame = text_frame(comparison)
    above = lines_beside(comparison)
    table = frame.to_latex(index=False, escape=True, column_format="l" + "r" * (frame.shape[1] - 1))
    return "".join(f"% {plain(line)}\n" for line in above) + table.replace("±", r"$\pm$")


def csv(frame: pd.DataFrame) -> str:
    """A table as CSV whose text no spreadsheet takes for formulas."""
    return frame.map(csv_text).rename(columns=csv_text).to_csv(index=False)


def lines_beside(comparison: Comparison) -> list[str]:
    left_out = [f"left out: {out.folder} ({'; '.join(out.reasons)})" for out in comparison.excluded]
    return [comparison.summary, *notes(comparison), *differing_lines(comparison), *left_out]
