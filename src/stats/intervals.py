"""How far a mean would move with another training and another test set.

A table has a row for every seed and a column for every cluster of test samples; its mean is a metric, or the difference of a
metric between two variants. Rows and columns are both drawn at random from more of their kind: a crossed layout with two
random factors (Searle, Casella and McCulloch 1992, chapter 4). The analysis of variance gives mean squares between seeds,
between clusters and within, and the variance of the mean is (seeds + clusters - within) / (seeds x clusters), never below
what it is without seeds or without clusters. Its degrees of freedom are the harmonic mean of those of seeds and clusters,
weighted by their shares of the variance, with half of what is within counted off the seeds. Satterthwaite (1946) squares the
shares; with three seeds, such intervals held as few as 92 % of simulated truths.

Where there is one seed, only clusters vary: the estimate is of these trained models. Where no predictions were kept, only
seeds vary: it is of this test set, by Student's t.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit  # scipy.stats takes a second to import

LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 100


@dataclass(frozen=True)
class Squares:
    """Mean squares of tables; arrays for many tables at once.

    Args:
        of_seeds: between rows.
        of_clusters: between columns.
        within: what rows and columns do not explain.
        seeds: number of rows.
        clusters: number of columns; 1 where no test samples are known.
        seed_freedom: degrees of freedom of `of_seeds`, if others than one less than the seeds: see moderation.py.
    """

    of_seeds: Any
    of_clusters: Any
    within: Any
    seeds: Any
    clusters: Any
    seed_freedom: Any = None

    @property
    def total(self) -> Any:
        """The variance of the mean times the number of cells."""
        return np.maximum(self.of_seeds - self.within, 0) + np.maximum(self.of_clusters, self.within)

    @property
    def variance(self) -> Any:
        """Of the mean."""
        return self.total / (self.seeds * self.clusters)

    @property
    def freedom(self) -> Any:
        """Degrees of freedom of the variance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip((self.of_seeds - self.within / 2) / self.total, 0, 1)
            of_seeds = np.where(
                share > 0, share / (self.seeds - 1 if self.seed_freedom is None else self.seed_freedom), 0
            )
            of_clusters = np.where(share < 1, (1 - share) / (self.clusters - 1), 0)
            return 1 / (of_seeds + of_clusters)

    def half_width(self, level: float = LEVEL) -> Any:
        """Half of the confidence interval of the mean."""
        return stdtrit(self.freedom, (1 + level) / 2) * np.sqrt(self.variance)

    def p_above(self, distance: Any) -> Any:
        """One-sided p-value of a mean that lies so far above a bound."""
        return stdtr(self.freedom, -distance / np.sqrt(self.variance))

    def with_seeds(self, seeds: Any) -> Squares:
        """What is expected of tables with another number of seeds."""
        more = np.maximum(self.of_clusters - self.within, 0) * seeds / self.seeds
        freedom = None if self.seed_freedom is None else self.seed_freedom * (seeds - 1) / (self.seeds - 1)
        return replace(self, of_clusters=self.within + more, seeds=seeds, seed_freedom=freedom)

    def with_clusters(self, clusters: Any) -> Squares:
        """What is expected of tables with another number of clusters."""
        more = np.maximum(self.of_seeds - self.within, 0) * clusters / self.clusters
        return replace(self, of_seeds=self.within + more, clusters=clusters)


def squares_of(table: np.ndarray) -> Squares:
    """Mean squares of tables (..., seeds, clusters), with at least two clusters."""
    seeds, clusters = table.shape[-2:]
    mean = table.mean((-2, -1), keepdims=True)
    rows, columns = table.mean(-1, keepdims=True) - mean, table.mean(-2, keepdims=True) - mean
    of_seeds, of_clusters = (clusters * (rows**2).sum((-2, -1)), seeds * (columns**2).sum((-2, -1)))
    if seeds == 1:
        return Squares(0 * of_seeds, of_clusters / (clusters - 1), 0 * of_seeds, seeds, clusters)
    within = ((table - mean - rows - columns) ** 2).sum((-2, -1)) / ((seeds - 1) * (clusters - 1))
    return Squares(of_seeds / (seeds - 1), of_clusters / (clusters - 1), within, seeds, clusters)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and test samples with its uncertainty.

    Args:
        mean: of the table.
        seeds: number of seeds.
        clusters: number of clusters of test samples; 0 where none are known.
        squares: of the table; None where neither seeds nor samples can tell anything.
        moderated: the same with a spread of seeds that borrows from the other pairs of a table, for p-values.
    """

    mean: float
    seeds: int
    clusters: int = 0
    squares: Squares | None = None
    moderated: Squares | None = None

    @property
    def tested(self) -> Squares | None:
        """What p-values come from."""
        return self.moderated or self.squares

    def half_width(self, level: float = LEVEL) -> float:
        """Half of the interval; NaN where it cannot be known."""
        return np.nan if self.squares is None else float(self.squares.half_width(level))

    @property
    def half(self) -> float:
        return self.half_width()

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    def p_above(self, bound: float) -> float:
        """One-sided p-value against the hypothesis that the true value is at most `bound`; 1 where nothing can be known."""
        if self.squares is None:
            return 1.0
        if self.squares.variance == 0:
            return 0.0 if self.mean > bound else 1.0
        own = self.squares.p_above(self.mean - bound)
        return float(own if self.moderated is None else guarded(own, self.moderated.p_above(self.mean - bound)))

    def p_differs(self) -> float:
        """Two-sided p-value against 0."""
        return min(1.0, 2 * min(self.p_above(0), (-self).p_above(0)))

    def seeds_needed(self, level: float = LEVEL, power: float = POWER) -> int | None:
        """How many seeds tell a true difference of this size from 0, with this power; None where even `MOST_SEEDS` would not,
        or where there is one seed."""
        if (squares := self.tested) is None or self.seeds < 2:
            return None
        found = squares.with_seeds(np.arange(2, MOST_SEEDS + 1))
        enough = found.half_width(level) + ndtri(power) * np.sqrt(found.variance) <= abs(self.mean)
        return int(found.seeds[enough.argmax()]) if enough.any() else None

    def __neg__(self) -> Estimate:
        return replace(self, mean=-self.mean)


def guarded(own: Any, found: Any) -> Any:
    """One-sided p-values that borrow from other pairs, but are small only where the pair's own interval leaves the bound out:
    a table never calls different what it shows as an interval around 0."""
    return np.where(own > (1 - LEVEL) / 2, np.maximum(own, found), found)


def of_table(table: np.ndarray) -> Estimate:
    """Of a table (seeds, clusters)."""
    seeds, clusters = table.shape
    if clusters < 2:
        return of_seeds(table.mean(1))
    return Estimate(float(table.mean()), seeds, clusters, squares_of(table))


def of_seeds(values: Any) -> Estimate:
    """Of one value per seed, where nothing is known of test samples."""
    values = np.asarray(list(values), dtype=np.float64)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else np.nan, len(values))
    zero = np.float64(0)
    return Estimate(float(values.mean()), len(values), 0, Squares(values.var(ddof=1), zero, zero, len(values), 1))
