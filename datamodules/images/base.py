"""What all image data sets share: permuted and mixed pictures, and a choice among the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.byte_array import DataSpec
from ..core.datamodule import ByteArrayDataModule, Split, SplitName, TensorSplit
from ..core.errors import UserError
from ..core.flatten import Flatten, GridModality, Permutation
from . import transforms
from .mixing import Mixing


class SeededSplit(Split):
    """Adds to each sample of a split a seed of its own, of which the device draws: `order_seed` for its order of elements,
    `mix_seed` for the mixing of pictures."""

    def __init__(self, split: Split, name: str) -> None:
        self.seeded, self.name, self.keys = split, name, split.keys

    def open(self) -> None:
        self.seeded.open()

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        return {**self.seeded.load(index, generator), self.name: transforms.draw_seed(generator)}


class ImageDataModule(ByteArrayDataModule):
    """A data set of labelled pictures, which can be permuted, as Flatten says, and mixed in training, as Mixing says."""

    def of_images(
        self,
        image: GridModality,
        classes: Sequence[str],
        permutation: Permutation,
        permutation_seed: int,
        mixup: float,
        cutmix: float,
    ) -> None:
        """Set `spec` and `flatten`."""
        mixing = Mixing(mixup, cutmix, len(classes)) if mixup or cutmix else None
        self.flatten = Flatten({"image": image}, permutation, permutation_seed, mixing)
        self.spec = DataSpec({"image": image.spec}, "single_label", tuple(classes))

    def split(self, name: SplitName) -> Split:
        split = super().split(name)
        return SeededSplit(split, "order_seed") if self.flatten.permutation == "per_example" else split

    def for_training(self, split: Split) -> Split:
        return SeededSplit(split, "mix_seed") if self.flatten.mixing else split


def choose_classes(names: Sequence[str], chosen: Sequence[int] | None) -> list[int]:
    """The classes of --data.classes, by number; all if left out. Raises UserError where that is no choice among them."""
    numbers = list(range(len(names))) if chosen is None else list(chosen)
    if len(numbers) < 2 or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(len(names))):
        raise UserError(
            f"--data.classes {numbers} should be two or more different classes: numbers from 0 to {len(names) - 1}"
        )
    return numbers


def with_classes(fingerprint: str, chosen: Sequence[int], names: Sequence[str]) -> str:
    """The fingerprint of some classes of a data set, which are other data than all of them."""
    if list(chosen) == list(range(len(names))):
        return fingerprint
    return hashlib.sha256(f"{fingerprint} {list(chosen)}".encode()).hexdigest()


def pictures_of_classes(keys: Sequence[str], images: Tensor, labels: Tensor, classes: Sequence[int]) -> TensorSplit:
    """A split of the pictures of some classes alone, labelled by their places in `classes`."""
    rows, places = torch.where(labels[:, None] == torch.tensor(classes))
    return TensorSplit([keys[row] for row in rows.tolist()], {"image": images[rows], "target": places})
