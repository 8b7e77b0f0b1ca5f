"""Spreads of seeds that borrow from the other pairs of a table."""

from itertools import combinations

import numpy as np
import pytest

from src.stats.intervals import Estimate, of_seeds, of_table
from src.stats.moderation import moderate, moderated
from src.stats.verdicts import verdicts

FREEDOM = np.full(4000, 2.0)


def test_spreads_that_differ_by_chance_alone_become_one():
    chance = np.random.default_rng(0).chisquare(2, 4000) / 2
    found, freedom = moderate(3 * chance, FREEDOM, 100 * FREEDOM)
    assert found.std() < 0.1 * found.mean()
    assert found.mean() == pytest.approx(3, rel=0.05)
    assert freedom.min() > 20  # infinite, but for the chance in 4,000 of them


@pytest.mark.parametrize("prior", [4.0, 10.0])
def test_the_prior_is_that_of_the_spreads(prior):
    generator = np.random.default_rng(1)
    true = 3 * prior / generator.chisquare(prior, 4000)
    measured = true * generator.chisquare(2, 4000) / 2
    found, freedom = moderate(measured, FREEDOM, 100 * FREEDOM)
    assert freedom[0] == pytest.approx(prior + 2, rel=0.25)
    assert np.square(found - true).mean() < np.square(measured - true).mean()
    np.testing.assert_array_equal(np.argsort(found), np.argsort(measured))  # drawn together, in the same order


def test_freedom_ends_where_the_variants_do():
    assert moderate(np.ones(6), np.full(6, 2.0), np.full(6, 6.0))[1].tolist() == [6.0] * 6
    few = np.array([0.0, 1.0, 2.0])  # the lowest is a limit, as a logarithm is taken
    assert np.isfinite(np.concatenate(moderate(few, np.full(3, 2.0), np.full(3, 4.0)))).all()


def tables(variants: int, seeds: int, spread: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    samples = generator.random((variants, seeds, 400)) < 0.75
    return samples + spread * generator.standard_normal((variants, seeds, 1))


def test_of_equal_variants_few_tables_have_a_pair_that_is_called_different():
    wrong = {True: 0, False: 0}
    for seed in range(200):
        scores = tables(8, 3, 0.02, seed)
        found = {(a, b): of_table(scores[a] - scores[b]) for a, b in combinations(range(8), 2)}
        for together in wrong:
            judged = verdicts(moderated(found) if together else found)
            wrong[together] += any(verdict.word != "not separable" for verdict in judged.values())
    assert wrong[True] <= 14  # 5 % of 200, and what chance adds
    assert wrong[False] > 2 * wrong[True]


def test_a_difference_keeps_its_interval_and_is_tested_with_the_spread_of_all():
    scores = tables(4, 3, 0.02, 5)
    plain = {(a, b): of_table(scores[a] - scores[b]) for a, b in combinations(range(4), 2)}
    found = moderated(plain)
    assert {pair: each.half for pair, each in found.items()} == {pair: each.half for pair, each in plain.items()}
    assert all(each.moderated.seed_freedom == 6 for each in found.values())  # three variants' worth of two
    p = found[0, 1].p_differs()
    assert p == (-found[0, 1]).p_differs() != plain[0, 1].p_differs()
    more = found[0, 1].moderated.with_seeds(np.array([3, 5]))
    assert more.seed_freedom.tolist() == [6, 12]


def test_one_pair_one_seed_equal_scores_and_means_without_samples_are_left_alone():
    scores = tables(3, 3, 0.02, 7)
    alone = {(0, 1): of_table(scores[0] - scores[1])}
    assert moderated(alone) == alone
    others: dict[tuple[int, int], Estimate] = {
        (0, 1): alone[0, 1],
        (0, 2): of_table(scores[:1, 0] - scores[2:, 0]),
        (1, 2): of_table(0 * scores[0]),
        (1, 3): of_seeds([0.1, 0.2, 0.3]),
        (2, 3): Estimate(0.1, 1),
    }
    assert [each.moderated for each in moderated(others).values()] == [None] * 5


def test_no_pair_is_called_different_whose_own_interval_holds_zero():
    """Also where one variant's seeds spread more than the others', and so more than they tell."""
    called = 0
    for seed in range(60):
        scores = tables(4, 5, 0.01, seed)
        scores[3] += 0.06 * np.random.default_rng([seed, 1]).standard_normal((5, 1)) + 0.03
        found = moderated({(a, b): of_table(scores[a] - scores[b]) for a, b in combinations(range(4), 2)})
        judged = verdicts(found)
        for pair, difference in found.items():
            if judged[pair].word != "not separable":
                called += 1
                assert not difference.low <= 0 <= difference.high
    assert called > 20
