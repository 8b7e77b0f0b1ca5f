"""The base class of image data sets: permutation, mixing, and subsets of classes."""

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
from ..core.random import random_seed
from .mixing import Mixing


class SeededSplit(Split):
    """Adds a random seed to each sample of a split, for random numbers that are drawn on the device: `order_seed` for the
    order of its elements, `mix_seed` for mixing images."""

    def __init__(self, split: Split, name: str) -> None:
        self.seeded, self.name, self.keys = split, name, split.keys

    def open(self) -> None:
        self.seeded.open()

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        return {**self.seeded.load(index, generator), self.name: random_seed(generator)}


class ImageDataModule(ByteArrayDataModule):
    """Base class of labelled images.

    Args:
        image: the modality.
        classes: names of the classes.
        permutation: order of the elements (Perceiver, table 2): `none` keeps it, `fixed` permutes all examples alike, and
            `per_example` permutes each example differently.
        permutation_seed: seed of the fixed permutation.
        mixup: alpha of MixUp on training images; 0 turns it off.
        cutmix: alpha of CutMix on training images; 0 turns it off.
        kwargs: see ByteArrayDataModule.
    """

    def __init__(
        self,
        image: GridModality,
        classes: Sequence[str],
        permutation: Permutation = "none",
        permutation_seed: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        mixing = Mixing(mixup, cutmix, len(classes)) if mixup or cutmix else None
        self.flatten = Flatten({"image": image}, permutation, permutation_seed, mixing)
        self.spec = DataSpec({"image": image.spec}, "single_label", tuple(classes))

    def split(self, name: SplitName) -> Split:
        split = super().split(name)
        return SeededSplit(split, "order_seed") if self.flatten.permutation == "per_example" else split

    def for_training(self, split: Split) -> Split:
        return SeededSplit(split, "mix_seed") if self.flatten.mixing else split


def choose_classes(names: Sequence[str], chosen: Sequence[int] | None) -> list[int]:
    """The class numbers of --data.classes, by default all. Raises UserError if they are not a valid choice."""
    numbers = list(range(len(names))) if chosen is None else list(chosen)
    if len(numbers) < 2 or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(len(names))):
        raise UserError(f"--data.classes {numbers}: choose at least two different numbers from 0 to {len(names) - 1}")
    return numbers


def with_classes(fingerprint: str, chosen: Sequence[int], names: Sequence[str]) -> str:
    """The fingerprint of a subset of the classes, which differs from that of all classes."""
    if list(chosen) == list(range(len(names))):
        return fingerprint
    return hashlib.sha256(f"{fingerprint} {list(chosen)}".encode()).hexdigest()


def images_of_classes(keys: Sequence[str], images: Tensor, labels: Tensor, classes: Sequence[int]) -> TensorSplit:
    """A split with the images of some classes, labelled by their index in `classes`."""
    rows, new_labels = torch.where(labels[:, None] == torch.tensor(classes))
    return TensorSplit([keys[row] for row in rows.tolist()], {"image": images[rows], "target": new_labels})
