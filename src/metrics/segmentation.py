"""Metrics of segmentation, exact on any number of ranks: pixels are counted by their class and what they were taken for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from .classification import check_finite

IGNORED = -1  # class of pixels that do not count


class SegmentationMetrics(Metric):
    """miou: mean, over the classes that occur in the split, of intersection over union; samples.

    Args:
        classes: number of classes, the background included.
    """

    definition = "miou: mean over the occurring classes, background included, of intersection over union of all pixels"
    full_state_update = False
    counts: Tensor  # (classes, classes): of the pixels of a class, those that were taken for another
    samples: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("counts", default=torch.zeros(classes, classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("samples", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor, weight: Tensor, keys: Sequence[str]) -> None:
        """Add a batch.

        Args:
            scores: (B, M, classes).
            target: (B, M), IGNORED where a pixel does not count.
            weight: (B,), 0 for samples that do not count.
            keys: the samples' names.
        """
        real = weight > 0
        check_finite(scores.flatten(1), real, keys)
        counted = real[:, None] & (target != IGNORED)
        pairs = target[counted] * self.classes + scores.argmax(dim=2)[counted]
        self.counts += pairs.bincount(minlength=self.classes**2).view_as(self.counts)
        self.samples += real.sum()

    def compute(self) -> dict[str, Tensor]:
        """The values by name."""
        occurring, right = self.counts.sum(dim=1), self.counts.diag()
        union = occurring + self.counts.sum(dim=0) - right
        return {"miou": (right / union)[occurring > 0].double().mean(), "samples": self.samples}
