"""Which samples belong together: parts that are stratified by label, and splits by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .order import epoch_order, hashed_seed

if TYPE_CHECKING:
    from .datamodule import SplitName


def split_by_name(data: str, name: str, held_out: Mapping[SplitName, float]) -> SplitName:
    """The split of a sample or a group of samples, from its name alone: the same whatever the others are.

    Args:
        data: name of the data set, so that equal names in two sets are independent.
        name: of the sample or group.
        held_out: shares of splits other than train.
    """
    position = hashed_seed(data, name) / 2**63
    for split, share in held_out.items():
        if position < share:
            return split
        position -= share
    return "train"


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
