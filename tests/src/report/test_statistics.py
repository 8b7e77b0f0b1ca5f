"""Intervals: they hold the truth in 95 % of simulated comparisons, and agree with scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from src.metrics.classification import average_precision_per_class
from src.metrics.contributions import correct, precision_contributions
from src.metrics.registry import metric_named
from src.report import statistics
from src.report.statistics import (
    Interval,
    bootstrap_intervals,
    joined,
    paired_interval,
    student_interval,
)

SIMULATIONS = 2000


def coverage(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([found.low <= truth <= found.high for found in intervals]))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_student_interval_of_simulated_runs_holds_the_truth_in_95_percent(seeds):
    generator = np.random.default_rng(seeds)
    found = [student_interval(generator.normal(0.7, 0.02, seeds)) for _ in range(SIMULATIONS)]
    assert 0.93 < coverage(found, 0.7) < 0.97


def test_paired_interval_holds_the_true_difference_in_95_percent_and_is_narrower_than_unpaired_runs():
    generator, found, halves = np.random.default_rng(0), [], []
    for _ in range(SIMULATIONS):
        shared = generator.normal(0, 0.05, 5)  # what a seed does to both cells
        first, second = (dict(enumerate(mean + shared + generator.normal(0, 0.01, 5))) for mean in (0.75, 0.72))
        found.append(paired_interval(first, second))
        halves.append(student_interval(first.values()).half)
    assert 0.93 < coverage(found, 0.03) < 0.97
    assert np.mean([interval.half for interval in found]) < np.mean(halves) / 2


def test_intervals_are_scipys():
    values = [0.71, 0.74, 0.69, 0.72]
    found = student_interval(values)
    assert (found.low, found.high) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval(0.95)))
    assert found.half == pytest.approx(found.high - found.mean)
    assert -found == Interval(-found.mean, -found.high, -found.low, 4)
    two = student_interval(values[:2])
    assert (two.low, two.high) == pytest.approx(tuple(stats.ttest_1samp(values[:2], 0).confidence_interval(0.95)))
    others = [0.70, 0.70, 0.66, 0.73]
    paired = paired_interval(dict(enumerate(values)), {**dict(enumerate(others)), 9: 0.1})
    wanted = stats.ttest_rel(values, others).confidence_interval(0.95)
    assert (paired.low, paired.high, paired.n) == (pytest.approx(wanted.low), pytest.approx(wanted.high), 4)


def test_one_seed_has_a_mean_and_no_interval_and_equal_seeds_an_interval_of_width_0():
    one, none = student_interval([0.5]), student_interval([])
    assert (one.mean, one.n) == (0.5, 1)
    assert np.isnan([one.low, one.high, one.half, none.mean]).all()
    same = student_interval([0.5, 0.5, 0.5])
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)


def test_bootstrap_is_scipys_and_repeats_in_any_amount_of_memory(monkeypatch):
    first, second = np.random.default_rng(1).random((2, 300)) < np.array([[0.8], [0.7]])
    difference = first.astype(float) - second
    (found,) = bootstrap_intervals(difference[:, None])
    wanted = stats.bootstrap((difference,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.006)
    assert found.mean == pytest.approx(difference.mean())
    monkeypatch.setattr(statistics, "AT_ONCE", 90_000)  # 300 draws at a time, the last 100 alone
    assert bootstrap_intervals(difference[:, None]) == [found]
    assert bootstrap_intervals(np.ones((5, 1)), resamples=1) == [Interval(1, 1, 1, 5)]


def test_bootstrap_of_paired_top1_holds_the_true_difference_in_95_percent():
    """300 test samples drawn from a world where two models are right with 0.8 and 0.7, often on the same samples."""
    generator, found = np.random.default_rng(3), []
    for _ in range(10):
        hard = generator.random((300, 100))  # 100 test splits at once: columns
        first = np.where(generator.random(hard.shape) < 0.7, hard < 0.8, generator.random(hard.shape) < 0.8)
        second = np.where(generator.random(hard.shape) < 0.7, hard < 0.7, generator.random(hard.shape) < 0.7)
        found += bootstrap_intervals(first.astype(float) - second, resamples=1000)
    assert 0.93 < coverage(found, 0.1) < 0.97


def scored(generator: np.random.Generator, samples: int, strength: float, target: np.ndarray | None = None):
    if target is None:
        target = (generator.random((samples, 5)) < 0.2).astype(np.int64)
    return (target * strength + generator.normal(size=target.shape)).astype(np.float32), target


def average_precision(scores: np.ndarray, target: np.ndarray) -> float:
    return float(average_precision_per_class(torch.from_numpy(scores), torch.from_numpy(target)).nanmean())


def test_bootstrap_of_map_holds_the_true_difference_in_95_percent():
    generator = np.random.default_rng(4)
    many, target = scored(generator, 200_000, 1.0)
    others, _ = scored(generator, 200_000, 1.5, target)
    truth = average_precision(others, target) - average_precision(many, target)
    found = []
    for _ in range(800):
        first, drawn = scored(generator, 400, 1.0)
        second, _ = scored(generator, 400, 1.5, drawn)
        difference = precision_contributions({"scores": second, "target": drawn}) - precision_contributions(
            {"scores": first, "target": drawn}
        )
        found += bootstrap_intervals(difference[:, None], resamples=500)
    assert 0.93 < coverage(found, truth) < 0.97


def test_contributions_to_map_have_it_as_their_mean_and_its_slope_in_the_weights():
    generator = np.random.default_rng(5)
    scores, target = scored(generator, 300, 1.0)
    scores = np.round(scores, 1)  # with ties
    target[:, 4] = 0  # a class without a positive does not count
    scores[5, 0], target[5, 0] = -9, 1  # a positive behind all others
    parts = precision_contributions({"scores": scores, "target": target})
    assert parts.mean() == pytest.approx(average_precision(scores, target), abs=1e-12)
    # a sample counted many times more, the others as often: how the metric moves with its weight
    for sample in (0, 7, 42):
        times = np.full(300, 1000)
        times[sample] += 1
        moved = average_precision(scores.repeat(times, axis=0), target.repeat(times, axis=0)) - parts.mean()
        assert moved * 300 * 1000 == pytest.approx(parts[sample] - parts.mean(), abs=0.002)


def test_bootstrap_of_map_is_as_wide_as_one_that_ranks_every_draw_anew():
    generator = np.random.default_rng(6)
    scores, target = scored(generator, 1000, 1.0)
    (found,) = bootstrap_intervals(precision_contributions({"scores": scores, "target": target})[:, None])
    draws = generator.integers(1000, size=(500, 1000))
    plain = np.array([average_precision(scores[draw], target[draw]) for draw in draws])
    assert found.high - found.low == pytest.approx(np.diff(np.quantile(plain, [0.025, 0.975]))[0], rel=0.15)


def test_joined_runs_contribute_their_mean_also_where_folds_share_no_samples():
    seeds = [(np.array([1, 2, 3]), np.array([1.0, 0.0, 1.0])), (np.array([1, 2, 3]), np.array([1.0, 1.0, 1.0]))]
    samples, parts = joined(seeds)
    assert samples.tolist() == [1, 2, 3]
    assert parts.tolist() == [1.0, 0.5, 1.0]
    folds = [(np.array([1, 2, 3]), np.array([1.0, 0.0, 0.0])), (np.array([7, 8]), np.array([1.0, 1.0]))]
    assert joined(folds)[1].mean() == pytest.approx((1 / 3 + 1) / 2)


def test_metrics_without_contributions_have_none():
    predictions = {"target": np.array([0, 1]), "predicted": np.array([0, 0])}
    assert correct(predictions).tolist() == [1.0, 0.0]
    assert precision_contributions(predictions) is None
    assert metric_named("loss").contributions is None
    scores = {"target": np.array([[0], [1]]), "scores": np.array([[0.1], [0.2]])}
    assert precision_contributions(scores).mean() == 1
    assert correct(scores) is None
