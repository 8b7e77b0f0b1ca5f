"""One row per variant: means over seeds with intervals, costs, differences between variants, published values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules import UserError

from ..config.error_messages import suggest
from ..metrics.registry import metric_named
from ..runs.folder import Run
from ..runs.results import Published, Results, SuiteEntry
from .records import Record, ranking_metric
from .rules import Budget, Excluded, split_runs, without_contradictions
from .statistics import Interval, bootstrap_intervals, joined, paired_interval, student_interval
from .verification import error_line

# Costs of a variant by column: where a run's results have them. The values of its runs are averaged.
COSTS: dict[str, Callable[[Results], float | None]] = {
    "parameters": lambda results: results.parameters,
    "flops_per_example": lambda results: results.flops_per_example,
    "train_samples_per_second": lambda results: results.train_samples_per_second,
    "peak_memory_bytes": lambda results: results.peak_memory["bytes"],
    "wall_time_seconds": lambda results: results.wall_time_seconds,
    "energy_joules": lambda results: results.energy_joules,
}


@dataclass
class VariantResults:
    """The comparable runs of one variant.

    Attributes:
        name: (experiment, variant).
        values: metric to (seed, fold) to value.
    """

    name: tuple[str, str]
    records: list[Record] = field(default_factory=list)
    values: dict[str, dict[tuple, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name[1]

    @property
    def suite(self) -> SuiteEntry | None:
        """Where it stands in its suite, as its first run recorded it."""
        return next((record.results.suite for record in self.records if record.results.suite is not None), None)

    @property
    def published(self) -> Published:
        return self.suite.published if self.suite else {}

    @property
    def budget(self) -> Budget:
        return Budget.of(self.records[0])

    def interval(self, metric: str) -> Interval:
        return student_interval(by_seed(self.values.get(metric, {})).values())

    def cost(self, column: str) -> float | None:
        costs = [COSTS[column](record.results) for record in self.records]
        known = [float(cost) for cost in costs if cost is not None]
        return float(np.mean(known)) if len(known) == len(costs) else None


@dataclass
class Comparison:
    """What compare shows: variants in order, runs that were left out, and differences between variants.

    Attributes:
        by_seed, by_sample: (first, second) to the interval of first - second in the main metric, over seeds and over test
            samples.
        against: number of the variant that differences are taken from.
    """

    split: str
    metric: str
    variants: list[VariantResults]
    excluded: list[Excluded]
    by_seed: dict[tuple[int, int], Interval] = field(default_factory=dict)
    by_sample: dict[tuple[int, int], Interval] = field(default_factory=dict)
    against: int = 0

    @property
    def records(self) -> list[Record]:
        return [record for variant in self.variants for record in variant.records]

    @property
    def metrics(self) -> list[str]:
        """The main metric, then all others that a variant has."""
        found = dict.fromkeys(name for variant in self.variants for name in variant.values)
        return [self.metric, *(name for name in found if name != self.metric)]

    @property
    def summary(self) -> str:
        """What all kept runs have in common, in one line."""
        first = self.records[0]
        samples = first.samples(self.split) or 0
        tested = f"{samples:,} {self.split} samples" + ("" if first.fold is None else " in a fold")
        runs = f"{len(self.records)} runs of {len(self.variants)} variant{'s' if len(self.variants) > 1 else ''}"
        budgets = {str(variant.budget) for variant in self.variants}
        budget = "different budgets" if len(budgets) > 1 else budgets.pop()
        return f"{first.data['dataset']} {first.data['fingerprint'][:8]}, {tested}, {budget}; {runs}"

    def frame(self) -> pd.DataFrame:
        """One row per variant, unrounded: mean, low and high of every metric over seeds; `difference_*` from the variant
        `against`, over seeds and over samples; costs; the published value, its version and the gap."""
        rows = []
        for number, variant in enumerate(self.variants):
            row: dict = {"experiment": variant.name[0], "cell": variant.label}
            row["modalities"] = "+".join(variant.records[0].data["spec"]["modalities"])
            row["seeds"] = len({record.seed for record in variant.records})
            row["runs"] = len(variant.records)
            for metric in self.metrics:
                found = variant.interval(metric)
                row |= {metric: found.mean, f"{metric}_low": found.low, f"{metric}_high": found.high}
            row["against"] = self.variants[self.against].label
            pair = (number, self.against)
            for kind, found in (("seeds", self.by_seed.get(pair)), ("samples", self.by_sample.get(pair))):
                low, mean, high = (found.low, found.mean, found.high) if found else (np.nan,) * 3
                row |= {f"difference_{kind}": mean, f"difference_{kind}_low": low, f"difference_{kind}_high": high}
            value, version = published_value(variant.published, self.metric)
            row |= {"published": value, "published_version": version, "gap": row[self.metric] - value}
            row |= {"training_samples": variant.budget.samples} | {column: variant.cost(column) for column in COSTS}
            rows.append(row)
        return pd.DataFrame(rows)


def compare_runs(
    runs: list[Run],
    split: str = "test",
    against: str | None = None,
    any_budget: bool = False,
    unfinished: Sequence[Path] = (),
) -> Comparison:
    """Leave out what must not be compared, and compare the rest.

    Args:
        runs: finished runs.
        split: of the data, val or test.
        against: the variant that differences are taken from; the first if left out.
        any_budget: see rules.
        unfinished: run folders that are listed as unfinished.

    Raises:
        UserError: no run was measured on the split, none agrees with itself, or no variant is called `against`.
    """
    sound, wrong = without_contradictions([Record.of(run) for run in runs])
    if wrong and not sound:
        raise UserError(error_line({out.folder: out.reasons[0] for out in wrong}))
    kept, excluded = split_runs(sound, split, any_budget)
    excluded += wrong + [
        Excluded(str(path), (path.parent.parent.name, path.parent.name), None, ("not finished: no results.json",))
        for path in unfinished
    ]
    metric = ranking_metric(kept, split)
    excluded.sort(key=lambda out: natural(out.folder))
    comparison = Comparison(split, metric, variants_of(kept, split), excluded)
    labels = [variant.label for variant in comparison.variants]
    if against is not None:
        if against not in labels:
            raise UserError(f"--against {against}: no comparable variant has this name{suggest(against, labels)}")
        comparison.against = labels.index(against)
    add_differences(comparison)
    return comparison


def variants_of(records: list[Record], split: str) -> list[VariantResults]:
    """In the order of their suite where they recorded one, else by name."""
    variants: dict[tuple[str, str], VariantResults] = {}
    for record in sorted(records, key=lambda record: (record.variant, record.repeat)):
        variant = variants.setdefault(record.variant, VariantResults(record.variant))
        variant.records.append(record)
        for name, value in record.metrics(split).items():
            variant.values.setdefault(name, {})[record.repeat] = value

    def order(variant: VariantResults) -> tuple:
        position = variant.suite.position if variant.suite else len(records)
        return variant.name[0], position, natural(variant.label)

    return sorted(variants.values(), key=order)


def natural(name: str) -> list:
    """A sort key that puts run_2 before run_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def published_value(published: Published, metric: str) -> tuple[float, str | None]:
    """The published value of a paper's final version, else of its first, in the metric's unit, and which version; NaN where
    there is none."""
    versions = published.get(metric, {})
    for version in ("v2", "v1"):
        if version in versions:
            return metric_named(metric).from_published(versions[version]), version
    return np.nan, None


def by_seed(values: dict[tuple, float]) -> dict[int, float]:
    """One value per seed, the mean over its folds."""
    seeds: dict[int, list[float]] = {}
    for (seed, _), value in values.items():
        seeds.setdefault(seed, []).append(value)
    return {seed: float(np.mean(found)) for seed, found in seeds.items()}


def add_differences(comparison: Comparison) -> None:
    """Every variant against every other, on the seeds and folds that both have."""
    variants, metric = comparison.variants, comparison.metric
    pairs = [(i, j) for i in range(len(variants)) for j in range(i)]
    parts = [run_contributions(variant, metric) if comparison.split == "test" else {} for variant in variants]
    columns: dict[bytes, dict] = {}  # pairs tested on the same samples
    for i, j in pairs:
        first, second = variants[i].values.get(metric, {}), variants[j].values.get(metric, {})
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


def run_contributions(variant: VariantResults, metric: str) -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    """(seed, fold) to samples and their contributions to the metric, for runs that kept predictions."""
    contributions, found = metric_named(metric).contributions, {}
    if contributions is None:
        return found
    for record in variant.records:
        if record.predictions is not None:
            parts = contributions(record.predictions)
            if parts is not None:
                found[record.repeat] = (record.predictions["sample"], parts)
    return found
