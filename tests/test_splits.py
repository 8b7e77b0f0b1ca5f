"""Dealing samples out: classes are spread evenly, and equal labels and seeds give equal parts."""

from collections import Counter

import pytest

from datamodules.core.splits import stratified_parts

LABELS = [0] * 58 + [1] * 9 + [2] * 23 + [3] * 2


@pytest.mark.parametrize("parts", [2, 5, 10])
def test_parts_and_classes_differ_by_at_most_one(parts):
    dealt = stratified_parts(LABELS, parts, seed=0)
    sizes = Counter(dealt)
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for label in set(LABELS):
        shares = [sum(p == part and k == label for p, k in zip(dealt, LABELS, strict=True)) for part in range(parts)]
        assert max(shares) - min(shares) <= 1


def test_the_seed_decides():
    assert stratified_parts(LABELS, 5, seed=0) == stratified_parts(LABELS, 5, seed=0)
    assert stratified_parts(LABELS, 5, seed=0) != stratified_parts(LABELS, 5, seed=1)


def test_labels_may_stand_in_any_order():
    mixed = [k for place in range(60) for k in LABELS[place::60]]
    assert Counter(zip(stratified_parts(mixed, 5, 0), mixed, strict=True)).keys() >= {(part, 0) for part in range(5)}
    assert stratified_parts([], 5, 0) == []
