"""What a table says of its pairs: which variant is better, and where the data do not separate two.

All pairs of a table are tested, so their p-values are corrected together by Holm (1979): of a table of equal variants, at
most 5 % have a pair that is called different.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .intervals import LEVEL, MOST_SEEDS, Estimate
from .moderation import Pair

Word = Literal["better", "worse", "not separable"]


@dataclass(frozen=True)
class Verdict:
    """Of one pair, for its first variant.

    Args:
        word: better, worse or not separable.
        p: corrected for all pairs of the table.
        why: where they are not separable: what it would take.
    """

    word: Word
    p: float
    why: str = ""

    @property
    def text(self) -> str:
        return self.word + (f" ({self.why})" if self.why else "")


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected so that all of them together hold the level."""
    p = np.asarray(p_values, dtype=np.float64)
    order = p.argsort(kind="stable")
    found = np.empty_like(p)
    found[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return found


def verdicts(differences: Mapping[Pair, Estimate], higher_is_better: bool = True) -> dict[Pair, Verdict]:
    """Of every pair, in both directions.

    Args:
        differences: (first, second) to first - second, each pair once.
        higher_is_better: the direction of the metric.
    """
    # one seed says nothing of another training
    p = holm([1.0 if found.seeds < 2 else found.p_differs() for found in differences.values()])
    found: dict[Pair, Verdict] = {}
    for ((first, second), difference), corrected in zip(differences.items(), p, strict=True):
        if corrected > 1 - LEVEL:
            same = Verdict("not separable", float(corrected), missing(difference, len(differences)))
            found |= {(first, second): same, (second, first): same}
            continue
        good = (difference.mean > 0) == higher_is_better
        better, worse = Verdict("better", float(corrected)), Verdict("worse", float(corrected))
        found |= {(first, second): better if good else worse, (second, first): worse if good else better}
    return found


def missing(difference: Estimate, comparisons: int) -> str:
    """What it would take to tell two variants apart, if their true difference is as measured."""
    if difference.seeds < 2:
        return "one seed"
    if difference.mean == 0:
        return "no difference"
    needed = difference.seeds_needed(1 - (1 - LEVEL) / max(comparisons, 1))
    if needed is None:
        return f"more than {MOST_SEEDS} seeds, or more test samples"
    return f"about {max(needed, difference.seeds + 1)} seeds"


def ranks(count: int, found: Mapping[Pair, Verdict]) -> list[tuple[int, int]]:
    """The highest and the lowest rank that each of `count` variants can have."""

    def number(variant: int, word: Word) -> int:
        return sum(found[variant, other].word == word for other in range(count) if (variant, other) in found)

    return [(1 + number(variant, "worse"), count - number(variant, "better")) for variant in range(count)]


def tie_groups(order: Sequence[int], found: Mapping[Pair, Verdict]) -> list[list[int]]:
    """The largest groups of variants, neighbours in the ranking, of which no two are separable; they may overlap (a letter
    display; Piepho 2004).

    Args:
        order: variants from the best to the worst mean.
        found: verdicts of all pairs.
    """

    def tied(group: Sequence[int]) -> bool:
        pairs = ((a, b) for a in group for b in group if a != b)
        return all((pair not in found) or found[pair].word == "not separable" for pair in pairs)

    groups: list[list[int]] = []
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and tied(order[start : end + 1]):
            end += 1
        group = list(order[start:end])
        if not groups or not set(group) <= set(groups[-1]):
            groups.append(group)
    return groups
