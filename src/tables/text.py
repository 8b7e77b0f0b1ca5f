"""What all tables are made with: committed CSV files, Markdown and figures as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from datamodules import UserError

ROOT = Path(__file__).parents[2]


def results() -> Path:
    return ROOT / "results"


def load_results(name: str, suffix: str = "") -> pd.DataFrame:
    """The committed CSV of a benchmark, or of the cells of a suite (suffix `_cells`), from any hardware."""
    pattern = rf"{name}_[a-z0-9-]+-threads{suffix}.csv"
    files = [file for file in sorted(results().glob("*.csv")) if re.fullmatch(pattern, file.name)]
    if not files:
        raise UserError(
            f"results/ has no {name}_HARDWARE{suffix}.csv: create it with src.benchmark or src.compare --csv"
        )
    older = {"against": "reference", "difference_seeds": "difference"}
    older |= {f"difference_seeds_{bound}": f"difference_{bound}" for bound in ("low", "high")}
    return pd.read_csv(files[-1]).rename(columns=older)


def markdown(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(header), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seconds(value: float) -> str:
    return f"{value:.3g} s"


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    """In percent, such as 70.5 ± 7.5; only the mean if there is one seed."""
    if pd.isna(mean):
        return ""
    text = f"{100 * mean:{sign}.1f}"
    return text if pd.isna(low) else f"{text} ± {50 * (high - low):.1f}"
