"""scikit-learn's handwritten digits."""

import hashlib
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ..core.datamodule import Split, SplitName
from ..core.flatten import GridModality, Permutation
from ..core.order import epoch_order
from .base import ImageDataModule, choose_classes, pictures_of_classes, with_classes

DIGITS = tuple("0123456789")


@cache
def load_digit_images() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits: images (1797, 8, 8) uint8 from 0 to 255, labels (1797,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).reshape(-1, 8, 8) * (255 / 16)
    return pixels.round().to(torch.uint8), torch.from_numpy(labels).long()


def digit_split(name: SplitName) -> list[int]:
    """Row numbers of a split of `load_digit_images`: 1,197 train, 300 val, 300 test, drawn once for all runs."""
    order = epoch_order(1797, seed=0, epoch=0)
    return sorted({"train": order[600:], "val": order[300:600], "test": order[:300]}[name])


class Digits(ImageDataModule):
    """scikit-learn's handwritten digits, 8x8 pixels, 10 classes: 64 elements of one channel. Needs no files.

    bands: frequencies per axis of the Fourier features.
    classes: numbers of those that are kept, in the order of their new numbers; all if left out.
    permutation, permutation_seed: the order of the elements, see Flatten.
    mixup, cutmix: alphas of the mixing of training pictures, see Mixing; 0 for none.
    """

    def __init__(
        self,
        bands: int = 4,
        classes: Sequence[int] | None = None,
        permutation: Permutation = "none",
        permutation_seed: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        image = GridModality((8, 8), channels=1, bands=bands, mean=78.0, std=96.0)
        self.classes = choose_classes(DIGITS, classes)
        names = [DIGITS[number] for number in self.classes]
        self.of_images(image, names, permutation, permutation_seed, mixup, cutmix)

    def make_split(self, name: SplitName) -> Split:
        images, labels = load_digit_images()
        rows = digit_split(name)
        keys = [f"digits/{row:04d}" for row in rows]
        return pictures_of_classes(keys, images[rows], labels[rows], self.classes)

    def fingerprint(self) -> str:
        images, labels = load_digit_images()
        digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes())
        return with_classes(digest.hexdigest(), self.classes, DIGITS)
