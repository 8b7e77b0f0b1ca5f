"""Classification with one label or several per example, as the data spec says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torchmetrics import Metric

from datamodules import Batch, ByteArray, DataSpec, UserError

from ..metrics.classification import MultiLabelMetrics, ScoreMetrics, SingleLabelMetrics
from ..optim import Schedule
from ..training.strategies import mean_over_ranks
from .base import Task


class Classification(Task):
    """A backbone, the mean over its features, and one linear map to the classes.

    data_spec: comes from the datamodule.
    backbone: made with the data spec.
    optimizer: made with the parameters.
    schedule: factor of the learning rate over training.
    label_smoothing: for single-label data.
    dropout: share of the mean's features that are hidden from the head while training.
    """

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], nn.Module],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(data_spec, backbone, optimizer, schedule)
        if data_spec.task == "detection":
            raise UserError(
                "Classification needs data with labels, these have boxes and masks: use src.tasks.Detection"
            )
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        width: Any = self.backbone.num_features
        self.head = nn.Linear(width, data_spec.num_classes)
        single = data_spec.task == "single_label"
        self.monitor = "top1" if single else "map"
        metrics = SingleLabelMetrics if single else MultiLabelMetrics
        self.val_metrics, self.test_metrics = metrics(), metrics()

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, value = mean_over_ranks(self.loss(self(batch.inputs), batch.target), batch.weight)
        # Lightning takes 2 ms to take down a value, whether or not it writes it: leave those out that it does not
        trainer: Any = self.trainer
        if (trainer.global_step + 1) % trainer.log_every_n_steps <= 1:
            self.log("train/loss", value, batch_size=len(batch.keys))
        return loss

    def evaluate(self, batch: Batch, split: str, metrics: Metric) -> None:
        self.record(self(batch.inputs), batch, split, metrics)

    def on_test_epoch_end(self) -> None:
        self.predictions = cast("ScoreMetrics", self.test_metrics).predictions()
        super().on_test_epoch_end()

    def record(self, scores: Tensor, batch: Batch, split: str, metrics: Metric) -> None:
        """Update the metrics and the loss of a split with the scores of a batch."""
        metrics.update(scores, batch.target, batch.weight, batch.keys)
        loss = self.loss(scores, batch.target)
        real = batch.weight.sum()
        mean = (loss * batch.weight).sum() / real.clamp(min=1)
        self.log(f"{split}/loss", mean, batch_size=int(real), on_epoch=True, sync_dist=True)
