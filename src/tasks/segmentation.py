"""Semantic segmentation: the class of every element of an image, from the features of the same elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from datamodules import Batch, ByteArray, DataSpec, UserError

from ..backbones.base import Backbone
from ..metrics.segmentation import IGNORED, SegmentationMetrics
from ..optim import Schedule
from .base import Task


class Segmentation(Task):
    """A backbone with one row of features for each pixel, and one linear map to the classes and the background.

    The class of a pixel is that of the first annotated object whose mask has it. Crowds and padding do not count.

    Args:
        data_spec: comes from the datamodule, of objects with masks.
        backbone: the network, made with the data spec: PerceiverIO with `outputs` set to image.
        optimizer: of torch or timm, made with the parameters; its `lr` is what the schedule scales.
        schedule: of src.optim, the factor of the learning rate over training; None keeps it constant.
        **options: of every task: weights, freeze, lr_decay and decay.
    """

    tasks = ("detection",)

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], Backbone],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_spec, backbone, optimizer, schedule, **options)
        classes = data_spec.num_classes + 1  # the last is the background
        self.head = nn.Linear(self.backbone.num_features, classes)
        self.set_metrics(lambda: SegmentationMetrics(classes), "miou")

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Class scores (B, M, classes + 1).

        Raises:
            UserError: the backbone has other rows of features than the image has pixels.
        """
        features, pixels = self.backbone(inputs), inputs["image"].values.shape[1]
        if features.shape[1] != pixels:
            raise UserError(
                f"{type(self.backbone).__name__} gives {features.shape[1]} rows of features for {pixels} pixels: use "
                "PerceiverIO with outputs image"
            )
        return self.head(features)

    def classes_of(self, batch: Batch) -> Tensor:
        """The class of every pixel (B, M), IGNORED where it does not count."""
        image = batch.inputs["image"]
        maps = torch.full(image.values.shape[:2], self.data_spec.num_classes, device=image.values.device)
        for classes, target in zip(maps, batch.target, strict=True):
            labels = target["labels"].masked_fill(target["iscrowd"], IGNORED)
            for label, mask in reversed(list(zip(labels, target["masks"].flatten(1), strict=True))):
                classes[mask] = label
        return maps if image.mask is None else maps.masked_fill(~image.mask, IGNORED)

    def losses(self, scores: Tensor, classes: Tensor) -> Tensor:
        """Cross-entropy of every example (B,), the mean over the pixels that count."""
        found = F.cross_entropy(scores.transpose(1, 2), classes, reduction="none", ignore_index=IGNORED)
        return found.sum(dim=1) / (classes != IGNORED).sum(dim=1).clamp(min=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        return self.mean_loss(self.losses(self(batch.inputs), self.classes_of(batch)), batch)

    def evaluate(self, batch: Batch, split: str, metrics: Any) -> None:
        scores, classes = self(batch.inputs), self.classes_of(batch)
        metrics.update(scores, classes, batch.weight, batch.keys)
        self.log_mean(f"{split}/loss", self.losses(scores, classes), batch)

    def predict(self, batch: Batch) -> Tensor:
        """The class of every pixel (B, M)."""
        return self(batch.inputs).argmax(dim=2).cpu()

    def caption(self, prediction: Tensor, target: Any, names: Sequence[str]) -> tuple[str, bool | None]:
        counts = prediction.bincount(minlength=len(names) + 1)[: len(names)]
        found = [f"{name} {count / len(prediction):.0%}" for name, count in zip(names, counts, strict=True) if count]
        return ", ".join(found) or "background", None
