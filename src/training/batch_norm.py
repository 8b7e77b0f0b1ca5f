"""Batch normalisation: its statistics over all ranks, and those that evaluation uses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.optim.swa_utils import update_bn

from datamodules import ByteArray, UserError
from datamodules.core.order import rank_and_world


class SettleBatchNorms(Callback):
    """Takes the statistics of batch normalisation anew before every evaluation, with the weights that are evaluated: their
    means over some training batches, the same each time.

    A channel whose mean is many times its spread, as short training leaves some, drifts with each step by more than the
    spread. The running averages of training follow too late, and a model that has learnt seems to guess.
    Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3 (precise BatchNorm).

    batches: how many; 20 of 64 images settle a ResNet on Fashion-MNIST.
    In a config it stands after callbacks that exchange the weights, such as EMAWeightAveraging.

    Raises UserError at the start for a model without batch normalisation, frozen, or for detection.
    """

    def __init__(self, batches: int = 20) -> None:
        if batches < 1:
            raise UserError(f"SettleBatchNorms with {batches} batches: give at least 1")
        self.batches = batches

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        norms = [
            module for module in pl_module.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        trained = any(parameter.requires_grad for parameter in pl_module.backbone.parameters())
        if not norms or not trained or pl_module.data_spec.task == "detection":
            raise UserError(
                "SettleBatchNorms is for classification by a backbone that trains and has batch normalisation: "
                "take it out of trainer.callbacks"
            )

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with trainer.precision_plugin.forward_context():
            update_bn(self.inputs(trainer), pl_module)

    on_test_epoch_start = on_validation_epoch_start

    def inputs(self, trainer: Any) -> Iterator[dict[str, ByteArray]]:
        for batch in islice(trainer.datamodule.loader("train", training=True), self.batches):
            yield trainer.strategy.batch_to_device(batch).inputs


def synchronise_batch_norms(model: nn.Module) -> None:
    """Let every batch normalisation take its statistics from all ranks, where there are several. In place."""
    if rank_and_world()[1] == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, SynchronisedBatchNorm):
            # a class of both kinds: what else the module does after normalising stays as it is
            kind = type(module)
            module.__class__ = type(f"Synchronised{kind.__name__}", (SynchronisedBatchNorm, kind), {})


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Mixed into a batch normalisation; torch's SyncBatchNorm takes GPUs alone and drops the activations that timm's
    BatchNormAct2d ends with."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        normalised = self.normalise(x)
        for then in ("drop", "act"):  # of timm's BatchNormAct2d
            normalised = getattr(self, then, nn.Identity())(normalised)
        return normalised

    def normalise(self, x: Tensor) -> Tensor:
        """As in training, with mean and variance over the elements of all ranks; updates the running statistics."""
        others = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.numel() // x.shape[1] * rank_and_world()[1]  # ranks have equal shapes
        mean = all_reduce(wide.sum(others)) / count
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().sum(others)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                self.running_var.lerp_((variance * (count / max(1, count - 1))).to(self.running_var.dtype), share)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            return (centred * (scale * self.weight).view(shape) + self.bias.view(shape)).to(x.dtype)
        return (centred * scale.view(shape)).to(x.dtype)
