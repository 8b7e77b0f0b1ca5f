"""One row per cell: means over seeds with their intervals, costs, differences between cells, published figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules import UserError

from ..config.error_messages import suggest
from ..runs.folder import Run
from ..suites.definition import SUITES, Figures, Suite, load_suite
from .records import Record, main_metric
from .rules import Budget, Excluded, split_runs
from .statistics import Interval, bootstrap_intervals, contributions, joined, paired_interval, student_interval

# Costs of a cell: column, key of results.json. Numbers of a cell's runs are averaged.
COSTS = {
    "parameters": "parameters",
    "flops_per_example": "flops_per_example",
    "train_samples_per_second": "train_samples_per_second",
    "peak_memory_bytes": "peak_memory",
    "wall_time_seconds": "wall_time_seconds",
    "energy_joules": "energy_joules",
}


@dataclass
class Cell:
    """The comparable runs of one cell; `values`: metric -> (seed, fold) -> value."""

    name: tuple[str, str]
    records: list[Record]
    values: dict[str, dict[tuple, float]]
    published: Figures

    @property
    def label(self) -> str:
        return self.name[1]

    @property
    def budget(self) -> Budget:
        return Budget.of(self.records[0])

    def interval(self, metric: str) -> Interval:
        return student_interval(by_seed(self.values.get(metric, {})).values())

    def cost(self, column: str) -> float | None:
        costs = [record.results.get(COSTS[column]) for record in self.records]
        known = [float(c["bytes"] if isinstance(c, dict) else c) for c in costs if c is not None]
        return float(np.mean(known)) if len(known) == len(costs) else None


@dataclass
class Comparison:
    """What compare shows: cells in order, runs that were left out, and the differences between cells.

    by_seed, by_sample: (first, second) -> interval of first - second in the main metric, over seeds and over test samples.
    """

    split: str
    metric: str
    cells: list[Cell]
    excluded: list[Excluded]
    by_seed: dict[tuple[int, int], Interval] = field(default_factory=dict)
    by_sample: dict[tuple[int, int], Interval] = field(default_factory=dict)
    against: int = 0  # number of the cell that differences are shown from

    @property
    def records(self) -> list[Record]:
        return [record for cell in self.cells for record in cell.records]

    @property
    def metrics(self) -> list[str]:
        """The main metric and all others that a cell has."""
        found = dict.fromkeys(name for cell in self.cells for name in cell.values)
        return [self.metric, *(name for name in found if name != self.metric)]

    @property
    def summary(self) -> str:
        """What all kept runs have in common, in one line."""
        first = self.records[0]
        samples = first.samples(self.split) or 0
        tested = f"{samples:,} {self.split} samples" + ("" if first.fold is None else " in a fold")
        runs = f"{len(self.records)} runs of {len(self.cells)} cell{'s' if len(self.cells) > 1 else ''}"
        budgets = {str(cell.budget) for cell in self.cells}
        budget = "other budgets" if len(budgets) > 1 else budgets.pop()
        return f"{first.data['dataset']} {first.data['fingerprint'][:8]}, {tested}, {budget}; {runs}"

    def frame(self) -> pd.DataFrame:
        """One row per cell, unrounded: for every metric its mean, low and high over seeds; `difference_*` from the cell
        `against`, over seeds and over samples; costs; the published figure as a fraction, its version and the gap."""
        rows = []
        for number, cell in enumerate(self.cells):
            row: dict = {"experiment": cell.name[0], "cell": cell.label}
            row["modalities"] = "+".join(cell.records[0].data["spec"]["modalities"])
            row["seeds"] = len({record.seed for record in cell.records})
            row["runs"] = len(cell.records)
            for metric in self.metrics:
                found = cell.interval(metric)
                row |= {metric: found.mean, f"{metric}_low": found.low, f"{metric}_high": found.high}
            row["against"] = self.cells[self.against].label
            pair = (number, self.against)
            for kind, found in (("seeds", self.by_seed.get(pair)), ("samples", self.by_sample.get(pair))):
                low, mean, high = (found.low, found.mean, found.high) if found else (np.nan,) * 3
                row |= {f"difference_{kind}": mean, f"difference_{kind}_low": low, f"difference_{kind}_high": high}
            value, version = published_figure(cell.published, self.metric)
            row |= {"published": value, "published_version": version, "gap": row[self.metric] - value}
            row |= {"training_samples": cell.budget.samples} | {column: cell.cost(column) for column in COSTS}
            rows.append(row)
        return pd.DataFrame(rows)


def compare_runs(
    runs: list[Run],
    split: str = "test",
    against: str | None = None,
    any_budget: bool = False,
    unfinished: Sequence[Path] = (),
) -> Comparison:
    """Sort out what may be compared, and compare it.

    against: the cell that differences are shown from; the first one if left out. any_budget: see rules. unfinished: run
    folders to name as such.
    Raises UserError where no run was measured on the split or no cell is called `against`.
    """
    kept, excluded = split_runs([Record.of(run) for run in runs], split, any_budget)
    excluded += [
        Excluded(str(path), (path.parent.parent.name, path.parent.name), None, ("not finished: no results.json",))
        for path in unfinished
    ]
    metric = main_metric(kept, split)
    excluded.sort(key=lambda out: natural(out.folder))
    comparison = Comparison(split, metric, cells_of(kept, split), excluded)
    labels = [cell.label for cell in comparison.cells]
    if against is not None:
        if against not in labels:
            raise UserError(f"--against {against}: no comparable cell is called so{suggest(against, labels)}")
        comparison.against = labels.index(against)
    add_differences(comparison)
    return comparison


def cells_of(records: list[Record], split: str) -> list[Cell]:
    """In the order of the suite where the experiment is one, else by name."""
    cells: dict[tuple[str, str], Cell] = {}
    suites = {name: suite_of(name) for name in sorted({record.cell[0] for record in records})}
    for record in sorted(records, key=lambda record: (record.cell, record.repeat)):
        cell = cells.setdefault(record.cell, Cell(record.cell, [], {}, figures(suites[record.cell[0]], record)))
        cell.records.append(record)
        for name, value in record.metrics(split).items():
            cell.values.setdefault(name, {})[record.repeat] = value

    def order(cell: Cell) -> tuple:
        suite = suites[cell.name[0]]
        names = [variant.name for variant in suite.variants] if suite else []
        own = cell.records[0].results["cell"]
        return cell.name[0], names.index(own) if own in names else len(names), natural(cell.label)

    return sorted(cells.values(), key=order)


def natural(name: str) -> list:
    """Sorts cell_2 before cell_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def suite_of(experiment: str) -> Suite | None:
    path = SUITES / f"{experiment}.yaml"
    return load_suite(path) if path.is_file() else None


def figures(suite: Suite | None, record: Record) -> Figures:
    own = [v.published for v in suite.variants if v.name == record.results["cell"]] if suite else []
    return own[0] if own else {}


def published_figure(published: Figures, metric: str) -> tuple[float, str | None]:
    """The figure of a paper's final version, else of its first, as a fraction, and which; NaN where none is known."""
    versions = published.get(metric, {})
    for version in ("v2", "v1"):
        if version in versions:
            return versions[version] / 100, version
    return np.nan, None


def by_seed(values: dict[tuple, float]) -> dict[int, float]:
    """One value per seed, the mean over its folds."""
    seeds: dict[int, list[float]] = {}
    for (seed, _), value in values.items():
        seeds.setdefault(seed, []).append(value)
    return {seed: float(np.mean(found)) for seed, found in seeds.items()}


def add_differences(comparison: Comparison) -> None:
    """Every cell against every other one, on the seeds and folds that both have."""
    cells, metric = comparison.cells, comparison.metric
    pairs = [(i, j) for i in range(len(cells)) for j in range(i)]
    parts = [run_contributions(cell, metric) if comparison.split == "test" else {} for cell in cells]
    columns: dict[bytes, dict] = {}  # pairs that were tested on the same samples
    for i, j in pairs:
        first, second = cells[i].values.get(metric, {}), cells[j].values.get(metric, {})
        both = first.keys() & second.keys()
        found = paired_interval(
            *(by_seed({r: v for r, v in values.items() if r in both}) for values in (first, second))
        )
        comparison.by_seed |= {(i, j): found, (j, i): -found}
        if both and all(both <= part.keys() for part in (parts[i], parts[j])):
            (names, a), (others, b) = (
                joined([part[repeat] for repeat in sorted(both)]) for part in (parts[i], parts[j])
            )
            if np.array_equal(names, others):
                columns.setdefault(names.tobytes(), {})[i, j] = a - b
    for differences in columns.values():
        found = bootstrap_intervals(np.stack(list(differences.values()), axis=1))
        for (i, j), interval in zip(differences, found, strict=True):
            comparison.by_sample |= {(i, j): interval, (j, i): -interval}


def run_contributions(cell: Cell, metric: str) -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    """(seed, fold) -> samples and what each contributes to the metric, of runs that kept predictions."""
    found = {}
    for record in cell.records:
        if record.predictions is not None:
            parts = contributions(metric, record.predictions)
            if parts is not None:
                found[record.repeat] = (record.predictions["sample"], parts)
    return found
