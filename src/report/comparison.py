"""One row per variant: means with intervals, costs, differences between variants and verdicts on them, published values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules import UserError

from ..config.error_messages import suggest
from ..metrics.registry import metric_named
from ..runs.folder import Run
from ..runs.results import Published, Results, SuiteEntry
from ..stats.claims import Claim, Judged, judge, parse_claim
from ..stats.intervals import Estimate, of_seeds, of_table
from ..stats.moderation import Pair, moderated
from ..stats.tables import Table, table_of
from ..stats.verdicts import Verdict, ranks, tie_groups, verdicts
from .differences import Difference, config_changes, differences
from .records import Record, ranking_metric
from .rules import Budget, Excluded, natural, place, published_budgets, split_runs, without_contradictions
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
        label: the variant's name, and what tells runs of other options from it.
        values: metric to (seed, fold) to value.
        tables: metric to scores by seed and cluster of test samples, where predictions of the same samples were kept.
    """

    name: tuple[str, str]
    label: str
    records: list[Record] = field(default_factory=list)
    values: dict[str, dict[tuple, float]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

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

    def interval(self, metric: str) -> Estimate:
        if (table := self.tables.get(metric)) is not None:
            return of_table(table.cells(table.seeds))
        return of_seeds(by_seed(self.values.get(metric, {})).values())

    def minus(self, other: VariantResults, metric: str) -> Estimate | None:
        """The difference from another variant on the seeds and folds that both have; None where there are none."""
        first, second = self.values.get(metric, {}), other.values.get(metric, {})
        both = first.keys() & second.keys()
        if not both:
            return None
        seeds = tuple(sorted({seed for seed, _ in both}))
        whole = all(repeat in both for repeat in [*first, *second] if repeat[0] in seeds)
        a, b = self.tables.get(metric), other.tables.get(metric)
        if whole and a is not None and b is not None and a.samples == b.samples:
            return of_table(a.cells(seeds) - b.cells(seeds))
        ours, theirs = (by_seed({r: v for r, v in values.items() if r in both}) for values in (first, second))
        return of_seeds(ours[seed] - theirs[seed] for seed in seeds)

    def cost(self, column: str) -> float | None:
        costs = [COSTS[column](record.results) for record in self.records]
        known = [float(cost) for cost in costs if cost is not None]
        return float(np.mean(known)) if len(known) == len(costs) else None


@dataclass
class Comparison:
    """What compare shows: variants in order, runs that were left out, differences between variants and what follows from
    them.

    Attributes:
        reference: number of the variant that differences are taken from.
        pairs: (first, second) to first - second in the main metric, for all pairs that have a seed in common.
        verdicts: of the same pairs.
        claims: what the scores say of claims.
        differing: whatever differs between the runs besides.
    """

    split: str
    metric: str
    variants: list[VariantResults]
    excluded: list[Excluded]
    reference: int = 0
    pairs: dict[tuple[int, int], Estimate] = field(default_factory=dict)
    verdicts: dict[tuple[int, int], Verdict] = field(default_factory=dict)
    claims: list[Judged] = field(default_factory=list)
    differing: list[Difference] = field(default_factory=list)

    @property
    def ranks(self) -> list[tuple[int, int]]:
        """The highest and the lowest rank that each variant can have."""
        return ranks(len(self.variants), self.verdicts)

    @property
    def ties(self) -> list[list[str]]:
        """From the best mean on: groups of variants that the data do not separate."""
        better = metric_named(self.metric).higher_is_better
        means = [variant.interval(self.metric).mean * (1 if better else -1) for variant in self.variants]
        order = sorted(range(len(means)), key=lambda number: -means[number])
        return [[self.variants[number].label for number in group] for group in tie_groups(order, self.verdicts)]

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
        budgets = {str(v.budget) for v in self.variants if not v.records[0].trivial} or {"no training"}
        budget = "different budgets" if len(budgets) > 1 else budgets.pop()
        budget = "equal: published" if published_budgets(self.records) else budget
        return f"{first.data['dataset']} {first.data['fingerprint'][:8]}, {tested}, {budget}; {runs}"

    def frame(self) -> pd.DataFrame:
        """One row per variant, unrounded: mean, low and high of every metric; the difference from the reference with its
        verdict and corrected p-value; ranks; costs; the published value, its version and the gap."""
        rows = []
        for number, variant in enumerate(self.variants):
            row: dict = {"experiment": variant.name[0], "cell": variant.label}
            row["modalities"] = "+".join(variant.records[0].data["spec"]["modalities"])
            row["seeds"] = len({record.seed for record in variant.records})
            row["runs"] = len(variant.records)
            for metric in self.metrics:
                row |= limits_of(metric, variant.interval(metric))
            pair = (number, self.reference)
            row |= {"rank_first": self.ranks[number][0], "rank_last": self.ranks[number][1]}
            row["reference"] = self.variants[self.reference].label
            row |= limits_of("difference", self.pairs.get(pair)) | self.verdict_of(pair)
            value, version = published_value(variant.published, self.metric)
            row |= {"published": value, "published_version": version, "gap": row[self.metric] - value}
            row |= {"training_samples": variant.budget.samples} | {column: variant.cost(column) for column in COSTS}
            rows.append(row)
        return pd.DataFrame(rows)

    def pairs_frame(self) -> pd.DataFrame:
        """One row per pair: the difference in the main metric, and the verdict on the first variant."""
        rows = []
        for pair, found in self.pairs.items():
            if pair[0] < pair[1]:
                first, second = (self.variants[number].label for number in pair)
                row = {"first": first, "second": second, "metric": self.metric} | limits_of("difference", found)
                rows.append(row | {"seeds": found.seeds, "clusters": found.clusters} | self.verdict_of(pair))
        return pd.DataFrame(rows)

    def claims_frame(self) -> pd.DataFrame:
        """One row per claim."""
        return pd.DataFrame(
            {"claim": j.claim.text, "verdict": j.word, "metric": j.metric, "p": j.p, "why": j.why}
            | limits_of("difference", j.difference)
            for j in self.claims
        )

    def verdict_of(self, pair: tuple[int, int]) -> dict:
        found = self.verdicts.get(pair)
        return {
            "verdict": found and found.word,
            "p": found.p if found else np.nan,
            "it_would_take": found and found.why,
        }


def limits_of(name: str, found: Estimate | None) -> dict[str, float]:
    mean, low, high = (found.mean, found.low, found.high) if found else (np.nan,) * 3
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def compare_runs(
    runs: list[Run],
    split: str = "test",
    reference: str | None = None,
    any_budget: bool = False,
    claims: Sequence[Claim] = (),
    unfinished: Sequence[Path] = (),
) -> Comparison:
    """Leave out what must not be compared, and compare the rest.

    Args:
        runs: finished runs.
        split: of the data, val or test.
        reference: the variant that differences are taken from; else that of the suite, else the first.
        any_budget: see rules.
        claims: are judged besides those that the runs' suite recorded.
        unfinished: run folders that are listed as unfinished.

    Raises:
        UserError: no run was measured on the split, none agrees with itself, or no variant is called `reference`.
    """
    sound, wrong = without_contradictions([Record.of(run) for run in runs])
    any_budget = any_budget or published_budgets(sound)
    if wrong and not sound:
        raise UserError(error_line({out.folder: out.reasons[0] for out in wrong}))
    if reference is not None and reference not in (labels := [record.variant[1] for record in sound]):
        raise UserError(f"--reference {reference}: no variant has this name{suggest(reference, labels)}")
    if reference is None:
        recorded = (getattr(record.results.suite, "reference", None) for record in sound)
        reference = next(filter(None, recorded), None)
    kept, excluded = split_runs(sound, split, any_budget, reference)
    excluded += wrong + [
        Excluded(str(path), (path.parent.parent.name, path.parent.name), None, ("not finished: no results.json",))
        for path in unfinished
    ]
    excluded.sort(key=lambda out: natural(out.folder))
    comparison = Comparison(split, ranking_metric(kept, split), variants_of(kept, split), excluded)
    labels = [variant.label for variant in comparison.variants]
    comparison.reference = labels.index(reference) if reference in labels else 0
    comparison.differing = differences([(variant.label, variant.records) for variant in comparison.variants])
    of_metric = cache(lambda metric: both_ways(pairs_of(comparison.variants, metric)))
    comparison.pairs = of_metric(comparison.metric)
    once = {pair: found for pair, found in comparison.pairs.items() if pair[0] < pair[1]}
    comparison.verdicts = verdicts(once, metric_named(comparison.metric).higher_is_better)
    wanted = {claim.text: claim for claim in [*recorded_claims(kept), *claims]}
    comparison.claims = judge(
        list(wanted.values()),
        comparison.metric,
        labels,
        lambda a, b, metric: of_metric(metric).get((labels.index(a), labels.index(b))),
    )
    return comparison


def recorded_claims(records: Sequence[Record]) -> list[Claim]:
    """The claims that the suites of runs recorded."""
    suites = (record.results.suite for record in records)
    return [
        parse_claim(text) for text in dict.fromkeys(text for suite in suites for text in getattr(suite, "claims", ()))
    ]


def variants_of(records: list[Record], split: str) -> list[VariantResults]:
    """In the order of their suite where they recorded one, else by name. Runs of one variant with other options than its
    first run, harmless ones apart, are a row of their own."""
    of_name: dict[tuple[str, str], list[VariantResults]] = {}
    for record in sorted(records, key=place):
        alike = of_name.setdefault(record.variant, [])
        row = next((row for row in alike if not config_changes(record, row.records[0])), None)
        if row is None:
            row = VariantResults(record.variant, record.variant[1])
            if alike:
                row.label = f"{row.label} ({other_options(record, alike[0].records[0])})"
            alike.append(row)
        row.records.append(record)
        for name, value in record.metrics(split).items():
            row.values.setdefault(name, {})[record.repeat] = value
    rows = [row for alike in of_name.values() for row in alike]
    for label, count in Counter(row.label for row in rows).items():
        alike = [row for row in rows if row.label == label]
        for row in alike if count > 1 else ():  # of several experiments, or alike in the options that are named
            row.label = (
                f"{row.name[0]}/{label}" if len({r.name for r in alike}) == count else f"{label} {alike.index(row) + 1}"
            )
    if split == "test":
        add_tables(rows)
    return rows


def other_options(record: Record, first: Record) -> str:
    """How a run differs from the first of its variant, in a few words."""
    changes = config_changes(record, first)
    name, (value, _) = next(iter(changes.items()))
    return f"{name.rpartition('.')[2]} {value}" + (f" and {len(changes) - 1} more" if len(changes) > 1 else "")


def add_tables(variants: list[VariantResults]) -> None:
    """The scores of test samples, where all runs of a seed kept them."""
    records = [record for variant in variants for record in variant.records]
    parts = [part for record in records for part in record.examined.parts.values()]
    # runs of before clusters were recorded have those of others
    clusters = {part.samples.tobytes(): part.clusters for part in parts if part.clusters.dtype.kind == "U"}
    for variant in variants:
        for metric in variant.values:
            lacking = {record.seed for record in variant.records if metric not in record.examined.parts}
            found = {}
            for record in variant.records:
                if record.seed not in lacking:
                    part = record.examined.parts[metric]
                    found[record.repeat] = replace(part, clusters=clusters.get(part.samples.tobytes(), part.clusters))
            if not lacking and (table := table_of(found)) is not None:
                variant.tables[metric] = table


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


def pairs_of(variants: Sequence[VariantResults], metric: str) -> dict[Pair, Estimate]:
    """Every variant against every later one that has a seed in common with it."""
    found = {}
    for first in range(len(variants)):
        for second in range(first + 1, len(variants)):
            if (difference := variants[first].minus(variants[second], metric)) is not None:
                found[first, second] = difference
    return moderated(found)


def both_ways(pairs: dict[Pair, Estimate]) -> dict[Pair, Estimate]:
    return pairs | {(second, first): -difference for (first, second), difference in pairs.items()}
