"""Dealing samples out: classes are spread evenly, and equal labels and seeds give equal parts."""

from collections import Counter

import pytest

from datamodules.core.order import epoch_order
from datamodules.core.splits import stratified_parts

LABELS = [0] * 58 + [1] * 9 + [2] * 23 + [3] * 2


@pytest.mark.parametrize("labels", [LABELS, [k for place in range(60) for k in LABELS[place::60]]])
@pytest.mark.parametrize("parts", [2, 5, 10])
def test_parts_and_classes_differ_by_at_most_one_in_any_order_of_labels(parts, labels):
    dealt = stratified_parts(labels, parts, seed=0)
    sizes = Counter(dealt)
    assert sizes.keys() == set(range(parts))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for label in set(LABELS):
        shares = [sum(p == part and k == label for p, k in zip(dealt, labels, strict=True)) for part in range(parts)]
        assert max(shares) - min(shares) <= 1


def test_the_samples_of_a_class_take_turns_in_the_order_of_the_first_epoch():
    """Members of splits must not change: recorded runs are compared with new ones."""
    dealt = stratified_parts(LABELS, 5, seed=3)
    in_turn = sorted(epoch_order(len(LABELS), seed=3, epoch=0), key=LABELS.__getitem__)
    assert [dealt[sample] for sample in in_turn] == [place % 5 for place in range(len(LABELS))]


def test_the_seed_decides():
    assert stratified_parts(LABELS, 5, seed=0) == stratified_parts(LABELS, 5, seed=0)
    assert stratified_parts(LABELS, 5, seed=0) != stratified_parts(LABELS, 5, seed=1)
    assert stratified_parts([], 5, seed=0) == []
