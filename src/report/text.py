"""A comparison as text: for the terminal, Markdown and LaTeX, all from the same strings."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

from .comparison import Comparison, published_figure
from .statistics import Interval
from .table import console, number, scaled

CHANGES_SHOWN = 4  # of a config; the page has all


def text_frame(comparison: Comparison) -> pd.DataFrame:
    """One row per cell, as strings; columns that no cell has are left out."""
    metric, against = comparison.metric, comparison.cells[comparison.against].label
    rows = []
    budgets = [str(cell.budget) for cell in comparison.cells]
    for position, cell in enumerate(comparison.cells):
        pair = (position, comparison.against)
        value, version = published_figure(cell.published, metric)
        mean = cell.interval(metric).mean
        rows.append(
            {
                "cell": cell.label,
                "seeds": str(len({record.seed for record in cell.records})),
                metric: with_half(cell.interval(metric)),
                f"minus {against}, over seeds": with_half(comparison.by_seed.get(pair), "+.4f"),
                "over samples": limits(comparison.by_sample.get(pair)),
                "published": "-" if version is None else f"{value:.3f} ({version})",
                "gap": number(mean - value, "+.3f"),
                "budget": budgets[position] if len(set(budgets)) > 1 else "-",
                "parameters": scaled(cell.cost("parameters")),
                "FLOPs": scaled(cell.cost("flops_per_example")),
                "samples/s": number(cell.cost("train_samples_per_second"), ",.0f"),
                "memory": scaled(cell.cost("peak_memory_bytes"), "B"),
                "time": with_unit(cell.cost("wall_time_seconds"), "s"),
                "energy": scaled(cell.cost("energy_joules"), "J"),
            }
        )
    frame = pd.DataFrame(rows)
    return frame[[name for name in frame if not (frame[name] == "-").all()]]


def with_half(interval: Interval | None, form: str = ".4f") -> str:
    """0.7046 ± 0.0750; the mean alone where there is but one seed."""
    if interval is None or pd.isna(interval.mean):
        return "-"
    mean = format(interval.mean, form)
    return mean if pd.isna(interval.half) else f"{mean} ± {interval.half:.4f}"


def limits(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}"


def with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.0f} {unit}"


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know of the figures."""
    found = [f"± and to: 95 % intervals. {comparison.metric}: mean over seeds, Student's t"]
    if comparison.by_seed:
        found[0] += "; differences: runs of equal seeds"
    if comparison.by_sample:
        found[0] += "; over samples: the same seeds, test samples drawn anew"
    hardware = sorted({record.hardware for record in comparison.records})
    if len(hardware) > 1:
        found.append(f"Runs took place on {'; '.join(hardware)}: samples/s, memory, time and energy are not comparable")
    energy = {tuple(record.results.get("energy_of") or ()) for record in comparison.records} - {()}
    if energy:
        found.append(f"Energy of training, as {' and '.join('+'.join(e) for e in sorted(energy))} count it")
    return found


def print_comparison(comparison: Comparison) -> None:
    """The table of cells, and what was left out of it and why."""
    frame = text_frame(comparison)
    out = console()
    table = Table(title=comparison.summary, title_justify="left")
    for name in frame:
        table.add_column(str(name), justify="left" if name == "cell" else "right", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*row)
    out.print(table)
    for note in notes(comparison):
        out.print(note, highlight=False)
    if comparison.excluded:
        out.print(f"[bold red]Left out, {len(comparison.excluded)} runs that must not be compared with these:[/]")
    for excluded in comparison.excluded:
        out.print(f"  {excluded.folder}: {'; '.join(excluded.reasons)}", highlight=False, soft_wrap=True, markup=False)
        changes = list((excluded.changes or {}).items())
        for name, (this, other) in changes[:CHANGES_SHOWN]:
            out.print(f"    {name}: {this}, not {other}", highlight=False, soft_wrap=True, markup=False)
        if len(changes) > CHANGES_SHOWN:
            out.print(f"    and {len(changes) - CHANGES_SHOWN} more options; --html shows all", highlight=False)


def markdown(comparison: Comparison) -> str:
    """A table in GitHub's Markdown, with the notes below it."""
    frame = text_frame(comparison)
    lines = [list(map(str, frame)), ["---" if name == "cell" else "---:" for name in frame]]
    lines += [list(row) for row in frame.itertuples(index=False)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    below = [comparison.summary, *notes(comparison), *(f"left out: {line}" for line in left_out(comparison))]
    return f"{table}\n\n" + "".join(f"{line}.\n" for line in below)


def latex(comparison: Comparison) -> str:
    """A tabular of booktabs, with the notes as comments above it."""
    frame = text_frame(comparison)
    above = [comparison.summary, *notes(comparison), *(f"left out: {line}" for line in left_out(comparison))]
    table = frame.to_latex(index=False, escape=True, column_format="l" + "r" * (frame.shape[1] - 1))
    return "".join(f"% {line}\n" for line in above) + table.replace("±", r"$\pm$")


def left_out(comparison: Comparison) -> list[str]:
    return [f"{excluded.folder} ({'; '.join(excluded.reasons)})" for excluded in comparison.excluded]
