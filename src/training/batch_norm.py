"""Batch normalisation: statistics over all ranks in training, and precise statistics for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from datamodules import ByteArray, UserError
from datamodules.core.order import rank_and_world


class SettleBatchNorms(Callback):
    """Recomputes the statistics of batch normalisation before every evaluation (precise BatchNorm).

    The statistics are averaged over some training batches, always the same ones, with the weights to be evaluated. After
    short training, the mean of some channels is many times their standard deviation and drifts by more than that with every
    step. The running averages lag behind, and a trained model seems to guess. See Wu and Johnson 2021, "Rethinking 'Batch'
    in BatchNorm", section 3.

    Frozen norms keep their statistics.

    In a config, list it after callbacks that swap the weights, such as EMAWeightAveraging.

    Args:
        batches: number of training batches to average over; 20 of 64 images are enough for a ResNet on Fashion-MNIST.

    Raises:
        UserError: `batches` is below 1; or, at setup, the backbone has no batch normalisation or is frozen, or the task is
            detection.
    """

    def __init__(self, batches: int = 20) -> None:
        if batches < 1:
            raise UserError(f"SettleBatchNorms got batches={batches}: pass at least 1")
        self.batches = batches

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        norms = [
            module
            for module in pl_module.backbone.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and (not module.affine or module.weight.requires_grad)  # not frozen
        ]
        trained = any(parameter.requires_grad for parameter in pl_module.backbone.parameters())
        if not norms or not trained or pl_module.data_spec.task == "detection":
            raise UserError(
                "SettleBatchNorms needs classification with a trainable backbone that has batch normalisation: "
                "remove it from trainer.callbacks"
            )

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with trainer.precision_plugin.forward_context():
            settle(pl_module, self.inputs(trainer))

    on_test_epoch_start = on_validation_epoch_start

    def inputs(self, trainer: Any) -> Iterator[dict[str, ByteArray]]:
        for batch in islice(trainer.datamodule.loader("train", training=True), self.batches):
            yield trainer.strategy.batch_to_device(batch).inputs


def settle(model: nn.Module, batches: Iterable[Any]) -> None:
    """Takes the statistics of batch normalisation anew, as means over batches, as torch.optim.swa_utils.update_bn does, but
    not those of norms that stay in evaluation mode.
    """
    training = model.training
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    if norms:
        with torch.no_grad():
            for batch in batches:
                model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


def synchronise_batch_norms(model: nn.Module) -> None:
    """Makes every batch normalisation of the model use statistics over all ranks, in place."""
    if rank_and_world()[1] == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, SynchronisedBatchNorm):
            # a subclass of both, to keep whatever else the module does after normalising
            kind = type(module)
            module.__class__ = type(f"Synchronised{kind.__name__}", (SynchronisedBatchNorm, kind), {})


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Mixin for batch normalisation with statistics over all ranks.

    Unlike torch's SyncBatchNorm it also runs on CPUs and keeps the activation inside timm's BatchNormAct2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        normalised = self.normalise(x)
        for name in ("drop", "act"):  # submodules of timm's BatchNormAct2d
            normalised = getattr(self, name, nn.Identity())(normalised)
        return normalised

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """For statistics that another module computes, over the real elements of a mask."""
        return all_reduce(x)

    def normalise(self, x: Tensor) -> Tensor:
        """Normalises with mean and variance over the elements of all ranks, and updates the running statistics."""
        reduced = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.numel() // x.shape[1] * rank_and_world()[1]  # shapes are equal on all ranks
        mean = all_reduce(wide.sum(reduced)) / count
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().sum(reduced)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                unbiased = variance * (count / max(1, count - 1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            return (centred * (scale * self.weight).view(shape) + self.bias.view(shape)).to(x.dtype)
        return (centred * scale.view(shape)).to(x.dtype)
