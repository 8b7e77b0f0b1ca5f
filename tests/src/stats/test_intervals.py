"""Intervals for another training and another test set hold the truth, and are the textbook ones where one factor varies."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from src.benchmarks import statistics
from src.stats.intervals import Estimate, of_seeds, of_table, squares_of


def test_over_seeds_alone_it_is_students_t():
    values = [0.71, 0.74, 0.69, 0.72]
    wanted = stats.ttest_1samp(values, 0)
    found, limits = of_seeds(values), wanted.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert found.p_differs() == pytest.approx(wanted.pvalue)
    assert (found.seeds, found.clusters) == (4, 0)


def test_of_one_seed_it_is_students_t_over_clusters():
    values = np.random.default_rng(0).normal(0.2, 1, 50)
    wanted = stats.ttest_1samp(values, 0)
    found, limits = of_table(values[None]), wanted.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert found.p_above(0) == pytest.approx(wanted.pvalue / 2)
    assert (-found).p_above(0) == pytest.approx(1 - wanted.pvalue / 2)


def test_mean_squares_are_those_of_a_two_way_layout():
    table = np.random.default_rng(1).normal(size=(4, 9)) + np.arange(4)[:, None]
    found, mean = squares_of(table), table.mean()
    rows, columns = table.mean(1), table.mean(0)
    residuals = table - rows[:, None] - columns + mean
    assert found.of_seeds == pytest.approx(9 * rows.var(ddof=1))
    assert found.of_clusters == pytest.approx(4 * columns.var(ddof=1))
    assert found.within == pytest.approx((residuals**2).sum() / (3 * 8))
    assert found.variance == pytest.approx((found.of_seeds - found.within + max(found.of_clusters, found.within)) / 36)


def test_many_tables_at_once_are_as_one_by_one():
    many = np.random.default_rng(2).normal(size=(6, 3, 20))
    together = squares_of(many).half_width()
    assert together == pytest.approx([of_table(table).half for table in many])


def test_without_a_second_seed_and_samples_nothing_is_known_and_without_spread_all_is():
    one, none = of_seeds([0.5]), of_seeds([])
    assert (one.mean, one.seeds) == (0.5, 1)
    assert np.isnan([one.low, one.half, none.mean]).all()
    assert one.p_differs() == 1
    assert one.seeds_needed() is None
    same = of_table(np.zeros((3, 5)))
    assert (same.low, same.high, same.p_differs()) == (0, 0, 1)
    assert of_table(np.full((3, 5), 0.25)).p_differs() == 0
    assert of_table(np.array([[0.1], [0.2]])) == of_seeds([0.1, 0.2])  # one cluster says nothing of others


def normal_tables(seeds: int, clusters: int, spreads: tuple[float, float, float], rounds: int = 2000) -> np.ndarray:
    generator = np.random.default_rng([seeds, clusters])
    shapes = ((rounds, seeds, 1), (rounds, 1, clusters), (rounds, seeds, clusters))
    return sum(spread * generator.standard_normal(shape) for spread, shape in zip(spreads, shapes, strict=True))


@pytest.mark.parametrize(("seeds", "clusters"), list(product((3, 10), (10, 50))))
@pytest.mark.parametrize(("of_seeds_", "of_clusters_"), [(0, 0), (0, 1), (0.1, 0), (0.1, 1), (1, 1), (3, 0)])
def test_intervals_of_normal_tables_hold_the_truth(seeds, clusters, of_seeds_, of_clusters_):
    tables = normal_tables(seeds, clusters, (of_seeds_, of_clusters_, 1))
    held = np.abs(tables.mean((-2, -1))) <= squares_of(tables).half_width()
    assert held.mean() > 0.925
    if of_seeds_ >= 1 or of_clusters_ >= 1:  # where all is noise, one more source than there is costs some width
        assert held.mean() < 0.985


def test_the_simulation_of_the_benchmark_shows_what_either_alone_leaves_out():
    cases = {(row["seed_spread"], row["seeds"]): row for row in statistics.coverage(600, 20, 0.75)}
    assert all(0.91 < row["share"] < 0.985 for row in cases.values())
    assert cases[0.04, 3]["over_samples_alone"] < 0.87
    assert cases[0.0, 10]["over_seeds_alone"] < 0.6


def test_equal_variants_are_seldom_called_different_and_a_difference_is_found_with_more_seeds():
    for row in statistics.family(60, 20):
        assert row["share"] <= 0.1 < row["without_correction"]
    few, _, many = (row["share"] for row in statistics.power(300))
    assert few + 0.1 < many


def test_the_seeds_it_would_take_find_the_difference_with_that_power():
    rows = np.array([-1.0, -1.0, 1.0, 1.0]) * np.sqrt(3) / 2  # a spread of seeds of 1
    pilot = Estimate(1.0, 4, 5, squares_of(np.tile(rows[:, None], 5)))
    needed = pilot.seeds_needed()
    found = []
    for seeds in (needed // 2, needed):
        tables = 1 + normal_tables(seeds, 5, (1, 0, 1e-9))
        found.append((tables.mean((-2, -1)) > squares_of(tables).half_width()).mean())
    assert found[0] < 0.7 < found[1] < 0.9
    assert Estimate(0.01, 4, 5, pilot.squares).seeds_needed() is None
