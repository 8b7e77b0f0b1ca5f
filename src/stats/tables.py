"""Tables of scores: a row for every seed, a column for every cluster of test samples.

A metric is the mean of one contribution per test sample, see metrics/contributions.py. Samples that share a prompt, a
picture or a catalogue are one cluster, which another test set would have whole or not at all. A column is the sum of its
samples' contributions in units of the metric, linear in the weights of clusters (a ratio estimator; Cochran 1977, section
6.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Repeat = tuple[int, int | None]  # seed and fold


@dataclass(frozen=True)
class Part:
    """What the test samples of one run contribute to a metric.

    Args:
        samples: (S,) numbers that name them.
        values: (S,) contributions, whose mean is the metric.
        clusters: (S,) names of their clusters.
    """

    samples: np.ndarray
    values: np.ndarray
    clusters: np.ndarray


@dataclass(frozen=True)
class Table:
    """Scores of one variant.

    Args:
        sums: (seeds, clusters) sums of contributions.
        sizes: (clusters,) number of samples.
        seeds: the rows.
        samples: what names the samples and their clusters: two tables with equal bytes have the same columns.
    """

    sums: np.ndarray
    sizes: np.ndarray
    seeds: tuple[int, ...]
    samples: bytes

    def cells(self, seeds: tuple[int, ...]) -> np.ndarray:
        """(seeds, clusters) whose mean is the metric."""
        return self.all_cells if seeds == self.seeds else self.cells_of([self.seeds.index(seed) for seed in seeds])

    @cached_property
    def all_cells(self) -> np.ndarray:
        """Those of all seeds, kept: every pair of variants takes them."""
        return self.cells_of(slice(None))

    def cells_of(self, rows: list[int] | slice) -> np.ndarray:
        sums, total = self.sums[rows], self.sizes.sum()
        mean = sums.sum() / (len(sums) * total)
        return (sums - mean * self.sizes) * (len(self.sizes) / total) + mean


def table_of(parts: Mapping[Repeat, Part]) -> Table | None:
    """The table of a variant's runs; None where there is none, or where seeds were tested on different samples.

    Args:
        parts: by seed and fold. The folds of a seed are joined to its row.
    """
    seeds = tuple(sorted({seed for seed, _ in parts}))
    of_repeat = sorted(parts.items(), key=lambda item: str(item[0]))
    rows, samples = [], None
    for seed in seeds:
        names, values, clusters = joined([part for (s, _), part in of_repeat if s == seed])
        named = names.tobytes() + clusters.tobytes()
        if samples is not None and samples != named:
            return None
        samples = named
        _, place = np.unique(clusters, return_inverse=True)
        rows.append(np.bincount(place, values))
    return None if samples is None else Table(np.stack(rows), np.bincount(place), seeds, samples)


def joined(parts: list[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, contributions and clusters of several folds as those of their mean."""
    if len(parts) == 1:
        return parts[0].samples, parts[0].values, parts[0].clusters
    names = np.concatenate([part.samples for part in parts])
    samples, first, place = np.unique(names, return_index=True, return_inverse=True)
    weights = [part.values * (len(samples) / (len(part.values) * len(parts))) for part in parts]
    clusters = np.concatenate([part.clusters for part in parts])[first]
    return samples, np.bincount(place, np.concatenate(weights), minlength=len(samples)), clusters
