"""Classification with one label or several per example, as the data spec says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from datamodules import Batch, ByteArray, DataSpec
from datamodules.core.checks import check_range

from ..backbones.base import Backbone
from ..metrics.classification import MultiLabelMetrics, SingleLabelMetrics
from ..optim import Schedule
from .base import Task


class Classification(Task):
    """A backbone, the mean over its features, and one linear map to the classes.

    Args:
        data_spec: comes from the datamodule; its task is single_label or multi_label.
        backbone: the network, made with the data spec: of src.backbones, or a class of your own.
        optimizer: of torch or timm, made with the parameters; its `lr` is what the schedule scales.
        schedule: of src.optim, the factor of the learning rate over training; None keeps it constant.
        label_smoothing: share of the target that is spread over all classes, for single-label data.
        dropout: share of the mean features that are zeroed before the head while training.
        **options: of every task: weights, freeze, lr_decay and decay.
    """

    tasks = ("single_label", "multi_label")
    explained = "predicted score"

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], Backbone],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(data_spec, backbone, optimizer, schedule, **options)
        check_range(0, 1, label_smoothing=label_smoothing, dropout=dropout)
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.backbone.num_features, data_spec.num_classes)
        if data_spec.task == "single_label":
            self.set_metrics(SingleLabelMetrics, "top1")
        else:
            self.set_metrics(MultiLabelMetrics, "map")
            self.drawn_as = "bars"

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Class scores (B, classes), before softmax or sigmoid."""
        return self.head(self.dropout(self.backbone(inputs).mean(dim=1)))

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Loss of every example (B,): cross-entropy, or the mean over classes of binary cross-entropy."""
        if self.data_spec.task == "single_label":
            if target.is_floating_point():  # of mixed examples
                target = target.to(scores.dtype)
            return F.cross_entropy(scores, target, reduction="none", label_smoothing=self.label_smoothing)
        return F.binary_cross_entropy_with_logits(scores, target.to(scores.dtype), reduction="none").mean(dim=1)

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities (B, classes)."""
        scores = self(batch.inputs)
        return (scores.softmax(dim=1) if self.data_spec.task == "single_label" else scores.sigmoid()).cpu()

    def caption(self, prediction: Tensor, target: Tensor, names: Sequence[str]) -> tuple[str, bool | None]:
        if self.data_spec.task == "multi_label":
            labels = [name for name, value in zip(names, target.tolist(), strict=True) if value]
            return " + ".join(labels) or "no label", None
        probability, predicted = prediction.max(dim=0)
        text = f"{names[int(predicted)]} {probability:.0%}"
        return (text, True) if predicted == target else (f"{text}, is {names[int(target)]}", False)

    def score_to_explain(self, inputs: dict[str, ByteArray]) -> Tensor:
        """The score of the predicted class, or the sum over the predicted labels."""
        scores = self(inputs)
        multi_label = self.data_spec.task == "multi_label"
        return torch.where(multi_label & (scores > 0).any(dim=1), scores.relu().sum(dim=1), scores.amax(dim=1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        return self.mean_loss(self.loss(self(batch.inputs), batch.target), batch)

    def evaluate(self, batch: Batch, split: str, metrics: Any) -> None:
        self.record(self(batch.inputs), batch, split, metrics)

    def on_test_epoch_end(self) -> None:
        self.predictions = self.test_metrics.predictions()
        super().on_test_epoch_end()

    def record(self, scores: Tensor, batch: Batch, split: str, metrics: Any) -> None:
        """Update the metrics and the loss of a split with the scores of a batch."""
        metrics.update(scores, batch.target, batch.weight, batch.keys)
        self.log_mean(f"{split}/loss", self.loss(scores, batch.target), batch)
