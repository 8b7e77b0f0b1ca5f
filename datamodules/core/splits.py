"""Stratified assignment of samples to parts, the same for the same labels and seed."""

from collections.abc import Sequence

from .order import epoch_order


def stratified_parts(labels: Sequence[int], parts: int, seed: int) -> list[int]:
    """Assigns every sample to a part from 0 to parts - 1.

    Part sizes differ by at most one, and so do the counts of each class in the parts. A class with fewer samples than
    parts is missing from some of them.
    """
    shuffled = epoch_order(len(labels), seed, epoch=0)
    assigned = [0] * len(labels)
    # the sort is stable: samples stay shuffled within a class, and each class starts at the part after the last one's
    for rank, sample in enumerate(sorted(shuffled, key=lambda sample: labels[sample])):
        assigned[sample] = rank % parts
    return assigned
