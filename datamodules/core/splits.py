"""Dealing samples out to splits: the same parts for the same labels and seed, every class spread evenly."""

from collections.abc import Sequence

from .order import epoch_order


def deal(labels: Sequence[int], parts: int, seed: int) -> list[int]:
    """A part from 0 to parts - 1 for every sample. Sizes of the parts differ by at most one, and so do every class's
    shares of them; a class with fewer samples than parts is missing from some."""
    shuffled = epoch_order(len(labels), seed, epoch=0)
    dealt = [0] * len(labels)
    # the sort is stable: shuffled within a class, and each class goes on where the last one stopped
    for place, sample in enumerate(sorted(shuffled, key=lambda sample: labels[sample])):
        dealt[sample] = place % parts
    return dealt
