"""Verdicts: Holm's correction, ranks and groups of ties."""

from itertools import combinations

import numpy as np
import pytest

from src.stats.intervals import of_seeds, of_table
from src.stats.verdicts import Verdict, holm, ranks, tie_groups, verdicts


def test_holm_rejects_step_by_step_as_published():
    """The smallest p against level / m, the next against level / (m - 1), until one is not small enough."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        p, level = generator.random(6) ** 4, 0.05
        rejected = set()
        for step, place in enumerate(p.argsort()):
            if p[place] > level / (len(p) - step):
                break
            rejected.add(place)
        assert set(np.flatnonzero(holm(p) <= level)) == rejected
    assert holm([]).tolist() == []
    assert holm([0.03, 0.04]).tolist() == [0.06, 0.06]


def table(mean: float, seeds: int = 5) -> np.ndarray:
    generator = np.random.default_rng(3)
    noise = generator.normal(0, 0.01, (seeds, 1)) + generator.normal(0, 0.1, (seeds, 100))
    return mean + noise - noise.mean()


def test_a_pair_is_better_in_one_direction_and_worse_in_the_other():
    found = verdicts({(0, 1): of_table(table(0.1)), (0, 2): of_table(table(0.001))})
    assert (found[0, 1].word, found[1, 0].word) == ("better", "worse")
    assert (found[0, 2].word, found[2, 0].word) == ("not separable", "not separable")
    lower = verdicts({(0, 1): of_table(table(0.1))}, higher_is_better=False)
    assert (lower[0, 1].word, lower[1, 0].word) == ("worse", "better")


def test_what_is_not_separable_says_what_it_would_take():
    close, far = (verdicts({(0, 1): of_table(table(mean))})[0, 1] for mean in (0.008, 0.0001))
    assert close.why.startswith("about ")
    assert int(close.why.split()[1]) > 5
    assert far.why == "more than 100 seeds, or more test samples"
    more = {(0, other): of_table(table(0.008)) for other in range(1, 30)}
    assert int(verdicts(more)[0, 1].why.split()[1]) > int(close.why.split()[1])  # the correction costs seeds


def test_one_seed_separates_nothing_however_large_the_difference():
    found = verdicts({(0, 1): of_table(table(0.9, seeds=1)), (0, 2): of_seeds([0.9])})
    assert {verdict.text for verdict in found.values()} == {"not separable (one seed)"}


def test_ranks_and_groups_follow_from_the_verdicts():
    """a > c, a > d, b > d; the others are not separable."""
    pairs = {(0, 2), (0, 3), (1, 3)}
    found = {}
    for a, b in combinations(range(4), 2):
        words = ("better", "worse") if (a, b) in pairs else ("not separable",) * 2
        found |= {(a, b): Verdict(words[0], 0), (b, a): Verdict(words[1], 0)}
    assert ranks(4, found) == [(1, 2), (1, 3), (2, 4), (3, 4)]
    assert tie_groups([0, 1, 2, 3], found) == [[0, 1], [1, 2], [2, 3]]
    apart = {pair: Verdict("better" if pair[0] < pair[1] else "worse", 0) for pair in found}
    assert tie_groups([0, 1, 2, 3], apart) == [[0], [1], [2], [3]]
    equal = {pair: Verdict("not separable", 1) for pair in found}
    assert tie_groups([3, 1, 2, 0], equal) == [[3, 1, 2, 0]]
    assert ranks(1, {}) == [(1, 1)]


@pytest.mark.parametrize("missing", [True, False])
def test_a_pair_without_common_seeds_has_no_verdict_and_is_tied(missing):
    found = {} if missing else {(0, 1): Verdict("better", 0), (1, 0): Verdict("worse", 0)}
    assert tie_groups([0, 1], found) == ([[0, 1]] if missing else [[0], [1]])
