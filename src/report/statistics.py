"""Confidence intervals of 95 %: over seeds, and over the samples of the test split.

Over seeds: the test split is fixed, training is repeated. Student's t, of means or of differences between two variants'
  runs with equal seeds.
Over samples: the trained models are fixed, the test split is resampled (a bootstrap), with the same resamples for both
  variants of a difference; seeds are averaged. What is resampled are contributions of samples to the metric, see
  metrics/contributions.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second to import

LEVEL = 0.95
RESAMPLES = 4000
AT_ONCE = 2**24  # random numbers in memory
Key = TypeVar("Key")


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval; low and high are NaN where n, the number of values, is below 2."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    def __neg__(self) -> Interval:
        return Interval(-self.mean, -self.high, -self.low, self.n)


def student_interval(values: Iterable[float]) -> Interval:
    """The mean of independent values, such as one per seed, with Student's t interval."""
    found = np.asarray(list(values), dtype=np.float64)
    n = len(found)
    mean = float(found.mean()) if n else np.nan
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * found.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(first: Mapping[Key, float], second: Mapping[Key, float]) -> Interval:
    """The mean of first - second over the keys (seeds) that both have."""
    return student_interval(first[key] - second[key] for key in first if key in second)


def bootstrap_intervals(contributions: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> list[Interval]:
    """Percentile intervals of the means of columns (samples, K), resampling rows with replacement, alike for all columns."""
    samples, columns = contributions.shape
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    step = max(1, AT_ONCE // samples)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(samples, size=(rows, samples)) + samples * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * samples).reshape(rows, samples)
        means[start : start + rows] = times @ contributions / samples
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    found = zip(contributions.mean(axis=0), low, high, strict=True)
    return [Interval(float(mean), float(lowest), float(highest), samples) for mean, lowest, highest in found]


def joined(runs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(samples, contributions) of several runs as those of their mean; runs may have different samples, as folds do."""
    samples, place = np.unique(np.concatenate([names for names, _ in runs]), return_inverse=True)
    weights = np.concatenate([found * len(samples) / (len(found) * len(runs)) for _, found in runs])
    return samples, np.bincount(place, weights, minlength=len(samples))
