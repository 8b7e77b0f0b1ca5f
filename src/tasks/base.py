"""What all tasks share: a backbone, an optimizer with its schedule, metrics on val and test, and counted operations."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import Metric

from datamodules import Batch, ByteArray, DataSpec
from datamodules.core.order import hashed_seed

from ..optim import Constant, Schedule
from ..training.batch_norm import synchronise_batch_norms
from ..training.strategies import shard


class Task(L.LightningModule):
    """A backbone made with the data spec. A subclass adds head and loss, `monitor`, `val_metrics` and `test_metrics`.

    monitor: the metric, on the validation split, that the best checkpoint has most of.
    predictions: of the last test, for the run folder: COCO's results, or arrays; None before.
    resumes_inside_epochs: whether a run may go on from the middle of an epoch.
    """

    monitor: str
    val_metrics: Metric
    test_metrics: Metric
    predictions: list[dict] | dict[str, np.ndarray] | None = None
    resumes_inside_epochs = True

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], nn.Module],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.data_spec = data_spec
        # a function, which copies of the model share: what a config makes of `optimizer` cannot be copied
        self.make_optimizer = lambda parameters: optimizer(parameters)
        self.schedule = schedule or Constant()
        self.backbone = backbone(data_spec)

    def configure_model(self) -> None:
        """Make one model of the ranks' copies or shards, where there are several."""
        synchronise_batch_norms(self)
        if self.device_mesh is not None:
            shard(self, self.device_mesh)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout and the like are functions of seed, epoch, step and rank: a run that goes on draws what it would have."""
        seed = os.environ.get("PL_GLOBAL_SEED", "0")
        number = hashed_seed("step", seed, self.current_epoch, batch_idx, self.global_rank)
        # not torch.manual_seed: without a GPU it keeps a stack trace a step, for the day that one is found
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    @abstractmethod
    def evaluate(self, batch: Batch, split: str, metrics: Metric) -> None:
        """Update the metrics of a split with a batch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_metrics)

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

    def on_meta(self) -> Self:
        """A copy without memory, for evaluation: what it does with example inputs tells shapes and operations."""
        return deepcopy(self).to("meta").eval().requires_grad_(False)

    def counted(self, inputs: dict[str, ByteArray]) -> object:
        """The operations that `count_flops` counts: one forward pass."""
        return self(inputs)

    def count_flops(self) -> int:
        """Floating-point operations of `counted` on one example, multiplications and additions counted apart.

        Counted on the meta device from the data spec: nothing is computed.
        """
        model = self.on_meta()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.counted(self.data_spec.example_inputs(device="meta"))
        return counter.get_total_flops()
