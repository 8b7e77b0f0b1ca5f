"""The spread of seeds of a pair of variants, with what the other pairs of its table tell of it.

Three seeds know little of their spread. Of 91 pairs, some have seeds that hardly differ by chance, and each of them would be
taken for a sure difference: with a spread of two points between seeds, a quarter of tables of 14 equal variants had one. So
mean squares between seeds are moderated (Smyth 2004, section 6.2): each is drawn towards the typical one of its table, the
more, the more alike all of them are. Pairs share variants, so their degrees of freedom are at most those of all variants but
one together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from .intervals import Estimate

Pair = tuple[int, int]
LEAST = 1e-5  # of the median: what a mean square counts as at least, since its logarithm is taken


def moderated(differences: Mapping[Pair, Estimate]) -> dict[Pair, Estimate]:
    """Differences with `moderated` set where several pairs have scores of test samples and more than one seed; all others are
    as they were.

    Args:
        differences: (first, second) to first - second, each pair once.
    """
    known = {
        pair: found.squares
        for pair, found in differences.items()
        if found.squares is not None and found.seeds > 1 and found.clusters > 1 and found.squares.variance > 0
    }
    if len(known) < 2:
        return dict(differences)
    freedom = np.array([squares.seeds - 1.0 for squares in known.values()])
    variants = {variant for pair in known for variant in pair}
    found = moderate(np.array([squares.of_seeds for squares in known.values()]), freedom, (len(variants) - 1) * freedom)
    better = {
        pair: replace(squares, of_seeds=value, seed_freedom=own)
        for (pair, squares), value, own in zip(known.items(), *found, strict=True)
    }
    return {pair: replace(found, moderated=better.get(pair)) for pair, found in differences.items()}


def moderate(squares: np.ndarray, freedom: np.ndarray, most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moderated mean squares and their degrees of freedom.

    Args:
        squares: (pairs,) mean squares.
        freedom: (pairs,) their degrees of freedom.
        most: (pairs,) the most that they may have in the end.
    """
    squares = np.maximum(squares, LEAST * max(float(np.median(squares)), np.finfo(np.float64).tiny))
    logs = np.log(squares) - digamma(freedom / 2) + np.log(freedom / 2)
    spread = logs.var(ddof=1) - polygamma(1, freedom / 2).mean()  # of their true values
    if spread <= 0:
        return np.full_like(squares, np.exp(logs.mean())), most
    # polygamma(1, x) falls from infinity to 0
    prior = 2 * float(brentq(lambda half: float(polygamma(1, half)) - spread, 1e-8, 1e15))  # pyrefly: ignore
    typical = np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))
    return (prior * typical + freedom * squares) / (prior + freedom), np.minimum(prior + freedom, most)
