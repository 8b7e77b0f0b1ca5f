"""How a model is spread over ranks: `ddp` copies it, `fsdp` shards it (torch's fully_shard). Both train alike, whatever the
number of ranks, and each loads the other's checkpoints.

A step's loss is the mean over the samples of all ranks, and batch normalisation takes its statistics from all of them, so
that the same global batch gives the same step on 1, 2 or 64 ranks.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.nn.functional import all_reduce

from datamodules.order import rank_and_world

# A rank that waits longer for the others ends with a message; loading, checkpoints and metrics take less
TIMEOUT = timedelta(seconds=float(os.environ.get("BYTEBENCH_TIMEOUT", "600")))


class FullyShard(ModelParallelStrategy):
    """Every rank holds a share of parameters, gradients and optimizer state. Checkpoints are whole, in one file."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=TIMEOUT)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def make_strategy(name: str) -> Strategy | str:
    """The strategy that a config names; Lightning's own where it is neither `ddp` nor `fsdp`."""
    if name == "ddp":
        # statistics of batch normalisation are equal on all ranks as they are
        return DDPStrategy(timeout=TIMEOUT, broadcast_buffers=False, gradient_as_bucket_view=True)
    return FullyShard() if name == "fsdp" else name


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the blocks of a model's backbone one by one, and what is left of it at the end. A block's parameters are
    whole only while it computes."""
    if isinstance(model, torch.distributed.fsdp.FSDPModule):
        return
    ranks = mesh["data_parallel"]
    for block in getattr(model.backbone, "blocks", ()):
        fully_shard(block, mesh=ranks)
    fully_shard(model, mesh=ranks)


def mean_over_ranks(losses: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The loss to go back from, and its value, from losses and weights (B,) of this rank's samples: the weighted mean over
    the samples of all ranks. The first is scaled so that the mean of all ranks' gradients is the gradient of the second."""
    total = (losses * weight).sum()
    sums = torch.stack([total.detach(), weight.sum().to(total.dtype)])
    world = rank_and_world()[1]
    if world > 1:
        dist.all_reduce(sums)
    real = sums[1].clamp(min=1)
    # where one rank's loss is not a number, that of all is, and all stop at the same step
    return total * (world / real) + 0 * sums[0], sums[0] / real


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
