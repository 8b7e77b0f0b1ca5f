"""Classification with one label or several per example, as the data spec says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import Metric

from datamodules import Batch, ByteArray, DataSpec
from src.metrics import MultiLabelMetrics, SingleLabelMetrics
from src.optim import Constant, Schedule


class Classification(L.LightningModule):
    """A backbone, the mean over its features, and one linear map to the classes.

    data_spec: comes from the datamodule.
    backbone: made with the data spec.
    optimizer: made with the parameters.
    schedule: factor of the learning rate over training.
    label_smoothing: for single-label data.
    """

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], nn.Module],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.data_spec = data_spec
        self.make_optimizer, self.schedule = optimizer, schedule or Constant()
        self.label_smoothing = label_smoothing
        self.backbone = backbone(data_spec)
        width: Any = self.backbone.num_features
        self.head = nn.Linear(width, data_spec.num_classes)
        single = data_spec.task == "single_label"
        self.monitor = "top1" if single else "map"
        metrics = SingleLabelMetrics if single else MultiLabelMetrics
        self.val_metrics, self.test_metrics = metrics(), metrics()

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Class scores (B, classes), before softmax or sigmoid."""
        return self.head(self.backbone(inputs).mean(dim=1))

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Loss of every example (B,): cross-entropy, or the mean over classes of binary cross-entropy."""
        if self.data_spec.task == "single_label":
            return F.cross_entropy(scores, target, reduction="none", label_smoothing=self.label_smoothing)
        return F.binary_cross_entropy_with_logits(scores, target.to(scores.dtype), reduction="none").mean(dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self(batch.inputs), batch.target)
        loss = (loss * batch.weight).sum() / batch.weight.sum().clamp(min=1)
        self.log("train/loss", loss, batch_size=len(batch.keys))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_metrics)

    def evaluate(self, batch: Batch, split: str, metrics: Metric) -> None:
        scores = self(batch.inputs)
        metrics.update(scores, batch.target, batch.weight, batch.keys)
        loss = self.loss(scores, batch.target)
        real = batch.weight.sum()
        mean = (loss * batch.weight).sum() / real.clamp(min=1)
        self.log(f"{split}/loss", mean, batch_size=int(real), on_epoch=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.report("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self.report("test", self.test_metrics)

    def report(self, split: str, metrics: Metric) -> None:
        for name, value in metrics.compute().items():
            self.log(f"{split}/{name}", value.float().to(self.device))
        metrics.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.parameters())
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def count_flops(self) -> int:
        """Floating-point operations of one example's forward pass, multiplications and additions counted apart.

        Counted on the meta device from the data spec: nothing is computed.
        """
        model = deepcopy(nn.ModuleList([self.backbone, self.head])).to("meta").eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            model[1](model[0](self.data_spec.example_inputs(device="meta")).mean(dim=1))
        return counter.get_total_flops()
