"""Regression: one number, or several, per example."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from datamodules import Batch, ByteArray, DataSpec

from ..backbones.base import Backbone
from ..metrics.regression import RegressionMetrics
from ..optim import Schedule
from .base import Task


class Regression(Task):
    """A backbone, the mean over its features, and one linear map to the predicted quantities.

    Args:
        data_spec: comes from the datamodule; its task is regression, its classes name the quantities.
        backbone: the network, made with the data spec: of src.backbones, or a class of your own.
        optimizer: of torch or timm, made with the parameters; its `lr` is what the schedule scales.
        schedule: of src.optim, the factor of the learning rate over training; None keeps it constant.
        **options: of every task: weights, freeze, lr_decay and decay.
    """

    tasks = ("regression",)

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], Backbone],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_spec, backbone, optimizer, schedule, **options)
        self.head = nn.Linear(self.backbone.num_features, data_spec.num_classes)
        self.set_metrics(RegressionMetrics, "rmse")

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Predictions (B, quantities)."""
        return self.head(self.backbone(inputs).mean(dim=1))

    def loss(self, predictions: Tensor, target: Tensor) -> Tensor:
        """Squared error of every example (B,), the mean over the quantities."""
        return (predictions - target.to(predictions.dtype)).square().mean(dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        return self.mean_loss(self.loss(self(batch.inputs), batch.target), batch)

    def evaluate(self, batch: Batch, split: str, metrics: Any) -> None:
        predictions = self(batch.inputs)
        metrics.update(predictions, batch.target, batch.weight, batch.keys)
        self.log_mean(f"{split}/loss", self.loss(predictions, batch.target), batch)

    def on_test_epoch_end(self) -> None:
        self.predictions = self.test_metrics.predictions()
        super().on_test_epoch_end()
