"""scikit-learn's handwritten digits."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..core.datamodule import Split, SplitName
from ..core.flatten import GridModality
from ..core.order import epoch_order
from .base import ImageDataModule, choose_classes, images_of_classes, with_classes

DIGITS = tuple("0123456789")


@cache
def load_digit_images() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits: images (1797, 8, 8) uint8 from 0 to 255, labels (1797,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).reshape(-1, 8, 8) * (255 / 16)
    return pixels.round().to(torch.uint8), torch.from_numpy(labels).long()


def digit_split(name: SplitName) -> list[int]:
    """Rows of `load_digit_images` in a split: 1,197 train, 300 val and 300 test, the same in all runs."""
    order = epoch_order(1797, seed=0, epoch=0)
    return sorted({"train": order[600:], "val": order[300:600], "test": order[:300]}[name])


class Digits(ImageDataModule):
    """scikit-learn's handwritten digits, 8x8 pixels, 10 classes: 64 elements of one channel. Needs no files.

    Args:
        bands: frequencies per axis of the Fourier features.
        classes: numbers of the classes to keep, which are renumbered in this order; None keeps all.
        kwargs: see ImageDataModule.
    """

    licence = "BSD-3-Clause"
    credit = "scikit-learn's digits (E. Alpaydin, C. Kaynak, 1998)"

    def __init__(self, bands: int = 4, classes: Sequence[int] | None = None, **kwargs: Any) -> None:
        self.classes = choose_classes(DIGITS, classes)
        image = GridModality((8, 8), channels=1, bands=bands, mean=78.0, std=96.0)
        super().__init__(image, [DIGITS[number] for number in self.classes], **kwargs)

    def make_split(self, name: SplitName) -> Split:
        images, labels = load_digit_images()
        rows = digit_split(name)
        keys = [f"digits/{row:04d}" for row in rows]
        return images_of_classes(keys, images[rows], labels[rows], self.classes)

    def fingerprint(self) -> str:
        images, labels = load_digit_images()
        digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes())
        return with_classes(digest.hexdigest(), self.classes, DIGITS)
