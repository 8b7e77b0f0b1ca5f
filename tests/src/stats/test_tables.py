"""Tables of scores: their mean is the metric, clusters are whole, and intervals of mAP hold its truth."""

import numpy as np
import pytest
import torch

from src.metrics.classification import average_precision_per_class
from src.metrics.contributions import correct, precision_contributions
from src.metrics.registry import metric_named
from src.stats.intervals import of_table
from src.stats.tables import Part, joined, table_of


def part(samples: list, values: list, clusters: list | None = None) -> Part:
    names = np.array(samples)
    return Part(names, np.array(values, dtype=np.float64), names if clusters is None else np.array(clusters))


def test_the_mean_of_a_table_is_the_metric_whatever_the_sizes_of_clusters():
    generator = np.random.default_rng(0)
    values, clusters = generator.random((3, 60)), [f"c{int(c)}" for c in generator.integers(7, size=60)]
    table = table_of({(seed, None): part(list(range(60)), list(values[seed]), clusters) for seed in range(3)})
    assert table.cells((0, 1, 2)).shape == (3, len(set(clusters)))
    assert table.cells((0, 1, 2)).mean() == pytest.approx(values.mean())
    assert table.cells((2,)).mean() == pytest.approx(values[2].mean())


def test_a_cluster_that_is_repeated_tells_nothing_new():
    """Every sample five times over, as prompts in five languages that are all right or all wrong."""
    values = np.random.default_rng(1).random(40)
    once = table_of({(0, None): part(list(range(40)), list(values))})
    names = [f"prompt {number}" for number in range(40) for _ in range(5)]
    five = table_of({(0, None): part(list(range(200)), list(values.repeat(5)), names)})
    naive = table_of({(0, None): part(list(range(200)), list(values.repeat(5)))})
    halves = [of_table(table.cells((0,))).half for table in (once, five, naive)]
    assert halves[1] == pytest.approx(halves[0])
    assert halves[2] < halves[0] / 2


def test_a_large_cluster_weighs_as_many_samples_as_it_has():
    """The difference of two clusters' means is not taken for a difference of their sizes."""
    sizes = [1] * 30 + [10] * 3
    clusters = [f"c{number}" for number, size in enumerate(sizes) for _ in range(size)]
    table = table_of({(0, None): part(list(range(60)), [0.7] * 60, clusters)})
    assert of_table(table.cells((0,))).half == pytest.approx(0, abs=1e-12)


def test_seeds_that_were_tested_on_other_samples_or_clusters_have_no_table():
    first = part([1, 2, 3], [1, 0, 1])
    assert table_of({(0, None): first, (1, None): part([1, 2, 4], [1, 0, 1])}) is None
    assert table_of({(0, None): first, (1, None): part([1, 2, 3], [1, 0, 1], ["a", "a", "b"])}) is None
    assert table_of({}) is None


def scored(generator: np.random.Generator, samples: int, strength: float, target: np.ndarray | None = None):
    if target is None:
        target = (generator.random((samples, 5)) < 0.2).astype(np.int64)
    return (target * strength + generator.normal(size=target.shape)).astype(np.float32), target


def average_precision(scores: np.ndarray, target: np.ndarray) -> float:
    return float(average_precision_per_class(torch.from_numpy(scores), torch.from_numpy(target)).nanmean())


def test_the_interval_of_map_holds_the_true_difference_in_95_percent():
    generator = np.random.default_rng(4)
    many, target = scored(generator, 200_000, 1.0)
    others, _ = scored(generator, 200_000, 1.5, target)
    truth, held = average_precision(others, target) - average_precision(many, target), []
    for _ in range(800):
        first, drawn = scored(generator, 400, 1.0)
        second, _ = scored(generator, 400, 1.5, drawn)
        ours, theirs = (precision_contributions({"scores": scores, "target": drawn}) for scores in (second, first))
        found = of_table((ours - theirs)[None])
        held.append(found.low <= truth <= found.high)
    assert 0.93 < np.mean(held) < 0.97


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


def test_the_interval_of_map_is_as_wide_as_a_bootstrap_that_ranks_every_draw_anew():
    generator = np.random.default_rng(6)
    scores, target = scored(generator, 1000, 1.0)
    found = of_table(precision_contributions({"scores": scores, "target": target})[None])
    draws = generator.integers(1000, size=(500, 1000))
    plain = np.array([average_precision(scores[draw], target[draw]) for draw in draws])
    assert 2 * found.half == pytest.approx(np.diff(np.quantile(plain, [0.025, 0.975]))[0], rel=0.15)


def test_folds_are_joined_to_their_mean_also_where_they_share_no_samples():
    samples, values, clusters = joined([part([1, 2, 3], [1, 0, 0], ["a", "a", "b"]), part([7, 8], [1, 1], ["b", "c"])])
    assert (samples.tolist(), clusters.tolist()) == ([1, 2, 3, 7, 8], ["a", "a", "b", "b", "c"])
    assert values.mean() == pytest.approx((1 / 3 + 1) / 2)
    dealt = {(0, 0): part([1, 2], [1, 0]), (0, 1): part([3, 4], [1, 1])}
    dealt |= {(1, 0): part([1, 4], [0, 0]), (1, 1): part([2, 3], [1, 1])}  # another seed deals them anew
    table = table_of(dealt)
    assert table.cells((0, 1)).tolist() == [[1, 0, 1, 1], [0, 1, 1, 0]]


def test_metrics_without_contributions_have_none():
    predictions = {"target": np.array([0, 1]), "predicted": np.array([0, 0])}
    assert correct(predictions).tolist() == [1.0, 0.0]
    assert precision_contributions(predictions) is None
    assert metric_named("loss").contributions is None
    scores = {"target": np.array([[0], [1]]), "scores": np.array([[0.1], [0.2]])}
    assert precision_contributions(scores).mean() == 1
    assert correct(scores) is None
