"""Fashion-MNIST: 28x28 images of garments."""

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.datamodule import Split, SplitName
from ..core.errors import UserError
from ..core.flatten import GridModality
from ..core.order import epoch_order
from .base import ImageDataModule, choose_classes, images_of_classes, with_classes

FASHION_CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FASHION_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: Path) -> Tensor:
    """Reads an IDX file of unsigned bytes, gzipped or not, into a uint8 tensor."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and prepare it again") from error
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * int.from_bytes(content[3:4]):
        raise UserError(f"{path} is not an IDX file of unsigned bytes: delete it and prepare it again")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    start = 4 + 4 * content[3]
    if len(content) - start != shape.prod(dtype=int):
        raise UserError(f"{path} is truncated ({len(content) - start} of {shape.prod()} bytes): prepare it again")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def find_fashion_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The four Fashion-MNIST files in a folder or in torchvision's subfolder of it; {} if any is missing."""
    for parent in (folder, folder / "FashionMNIST" / "raw"):
        found = {}
        for split, (images_name, labels_name) in FASHION_FILES.items():
            images, labels = existing(parent / images_name), existing(parent / labels_name)
            if images and labels:
                found[split] = (images, labels)
        if len(found) == len(FASHION_FILES):
            return found
    return {}


def existing(path: Path) -> Path | None:
    """The file or its gzipped version; None if neither exists."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


class FashionMNIST(ImageDataModule):
    """Fashion-MNIST, 28x28 pixels, 10 classes: 784 elements of one channel.

    There are 55,000 images to train, 5,000 held out from the training images for model selection (val), and 10,000 to test.

    Args:
        data_dir: a folder with the four IDX files, gzipped or not, or with torchvision's download.
        bands: frequencies per axis of the Fourier features.
        classes: numbers of the classes to keep, which are renumbered in this order; None keeps all.
        kwargs: see ImageDataModule.
    """

    licence = "MIT"
    credit = "Fashion-MNIST (Zalando SE, 2017)"

    def __init__(
        self,
        data_dir: str = "data/fashion_mnist",
        bands: int = 16,
        classes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.classes = choose_classes(FASHION_CLASSES, classes)
        image = GridModality((28, 28), channels=1, bands=bands, mean=72.9, std=90.0)
        super().__init__(image, [FASHION_CLASSES[number] for number in self.classes], **kwargs)
        self.data_dir = Path(data_dir)

    def files(self) -> dict[str, tuple[Path, Path]]:
        found = find_fashion_files(self.data_dir)
        if not found:
            raise UserError(
                f"Fashion-MNIST is not in {self.data_dir}: run `python -m datamodules.prepare fashion_mnist "
                f"--out {self.data_dir}`, or set --data.data_dir to a folder with its four IDX files"
            )
        return found

    def make_split(self, name: SplitName) -> Split:
        images, labels = map(read_idx, self.files()["test" if name == "test" else "train"])
        rows = list(range(len(images)))
        if name != "test":
            order = epoch_order(len(images), seed=0, epoch=0)
            rows = sorted(order[5000:] if name == "train" else order[:5000])
        stem = "test" if name == "test" else "train"
        keys = [f"{stem}/{row:05d}" for row in rows]
        return images_of_classes(keys, images[rows], labels[rows], self.classes)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for paths in self.files().values():
            for path in paths:
                digest.update(read_idx(path).numpy().tobytes())  # of the content, so gzip makes no difference
        return with_classes(digest.hexdigest(), self.classes, FASHION_CLASSES)
