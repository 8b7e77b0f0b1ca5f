"""Metrics of reconstructed values, exact on any number of ranks: sums are kept, not values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from datamodules import ByteArray

from .classification import check_finite


class ReconstructionMetrics(Metric):
    """rmse: root of the squared error's mean over the values of all real elements; r2: share of their variance explained."""

    definition = (
        "rmse: root mean squared error of all values; r2: 1 - squared error / squared deviation from their mean"
    )
    full_state_update = False
    sums: Tensor  # of squared errors, values, squared values; number of values, samples

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", default=torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, array: ByteArray, weight: Tensor, keys: Sequence[str]) -> None:
        """Add a batch.

        Args:
            predicted: (B, M, C).
            array: what was to be reconstructed; masked elements do not count.
            weight: (B,), 0 for samples that do not count.
            keys: the samples' names.
        """
        real = weight > 0
        check_finite(predicted.flatten(1), real, keys)
        counted = real[:, None].expand(predicted.shape[:2])
        if array.mask is not None:
            counted = counted & array.mask
        wanted, found = array.values[counted].double(), predicted[counted].double()
        parts = [(found - wanted).square().sum(), wanted.sum(), wanted.square().sum()]
        counts = [torch.as_tensor(wanted.numel()), real.sum()]
        self.sums += torch.stack([part.to(self.sums) for part in (*parts, *counts)])

    def compute(self) -> dict[str, Tensor]:
        """The values by name."""
        error, total, squares, count, samples = self.sums
        return {
            "rmse": (error / count).sqrt(),
            "r2": 1 - error / (squares - total.square() / count),
            "samples": samples,
        }
