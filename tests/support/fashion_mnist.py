"""Fashion-MNIST's files, small."""

import gzip
from pathlib import Path

import numpy as np

from datamodules.images.fashion_mnist import FASHION_FILES


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_fashion(folder: Path, gz: bool = False, train: int = 5100, test: int = 60) -> Path:
    """Noise, of which 5,000 images are held out of training. The first two pixels of an image hold its row number."""
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in zip(FASHION_FILES[split], (images, labels), strict=True):
            (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(idx(array), 1) if gz else idx(array))
    return folder
