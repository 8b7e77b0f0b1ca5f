"""scikit-learn's diabetes data: ten measurements of a patient, and how the disease progressed."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from .core.byte_array import DataSpec
from .core.datamodule import ByteArrayDataModule, Split, SplitName, TensorSplit
from .core.flatten import Flatten, GridModality
from .core.order import epoch_order

PATIENTS = 442
TARGET_MEAN, TARGET_STD = 152.1, 77.0  # of all patients


def load_patients() -> tuple[Tensor, Tensor]:
    """Measurements (442, 10) float32, each with mean 0 and standard deviation 1, and progression after a year (442, 1)."""
    from sklearn.datasets import load_diabetes

    measurements, progression = map(torch.from_numpy, load_diabetes(return_X_y=True))
    return (measurements * PATIENTS**0.5).float(), ((progression - TARGET_MEAN) / TARGET_STD).float()[:, None]


class Diabetes(ByteArrayDataModule):
    """The diabetes data set (Efron et al. 2004): 442 patients, 10 elements of one channel, regression. Needs no files.

    The target is disease progression after one year, in standard deviations. 282 patients train, 60 are val, 100 test, drawn
    once for all runs.

    Args:
        bands: frequencies of the Fourier features, which tell the measurements apart.
        kwargs: see ByteArrayDataModule.
    """

    def __init__(self, bands: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        measurements = GridModality((10,), channels=1, bands=bands)
        self.flatten = Flatten({"measurements": measurements})
        self.spec = DataSpec({"measurements": measurements.spec}, "regression", ("progression",))

    def make_split(self, name: SplitName) -> Split:
        measurements, progression = load_patients()
        order = epoch_order(PATIENTS, seed=0, epoch=0)
        rows = sorted({"test": order[:100], "val": order[100:160], "train": order[160:]}[name])
        tensors = {"measurements": measurements[rows], "target": progression[rows]}
        return TensorSplit([f"patient/{row:03d}" for row in rows], tensors)

    def fingerprint(self) -> str:
        measurements, progression = load_patients()
        return hashlib.sha256(measurements.numpy().tobytes() + progression.numpy().tobytes()).hexdigest()
