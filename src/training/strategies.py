"""Distributed strategies: `ddp` replicates the model, `fsdp` shards it (torch's fully_shard).

The loss is the mean over the samples of all ranks, and batch normalisation uses statistics over all ranks (batch_norm.py),
so the same global batch gives the same step on 1, 2 or 64 ranks, with either strategy. Checkpoints are interchangeable.
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

from datamodules.core.order import rank_and_world

# A rank that waits longer for the others fails; data loading, checkpoints and metrics take less
TIMEOUT = timedelta(seconds=float(os.environ.get("BYTEBENCH_TIMEOUT", "600")))


class FullyShard(ModelParallelStrategy):
    """Shards parameters, gradients and optimizer state over all ranks. Checkpoints are full, in a single file."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=TIMEOUT)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def make_strategy(name: str) -> Strategy | str:
    """Returns the strategy for a config's name: ours for `ddp` and `fsdp`, otherwise the name, for Lightning to resolve."""
    if name == "ddp":
        # the statistics of batch normalisation are equal on all ranks already
        return DDPStrategy(timeout=TIMEOUT, broadcast_buffers=False, gradient_as_bucket_view=True)
    return FullyShard() if name == "fsdp" else name


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shards each block of the backbone, then the rest of the model. The parameters of a block are gathered only while it
    runs. Does nothing if the model is sharded already."""
    if isinstance(model, torch.distributed.fsdp.FSDPModule):
        return
    ranks = mesh["data_parallel"]
    for block in getattr(model.backbone, "blocks", ()):
        fully_shard(block, mesh=ranks)
    fully_shard(model, mesh=ranks)


def mean_over_ranks(losses: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean loss over the samples of all ranks.

    Args:
        losses: (B,), the losses of this rank's samples.
        weight: (B,), their weights.

    Returns:
        The loss to call `backward` on, scaled so that averaging the gradients over ranks gives the gradient of the mean;
        and the mean itself.
    """
    total = (losses * weight).sum()
    sums = torch.stack([total.detach(), weight.sum().to(total.dtype)])
    world = rank_and_world()[1]
    if world > 1:
        dist.all_reduce(sums)
    total_weight = sums[1].clamp(min=1)
    # the second term makes a NaN on one rank a NaN on all, so that all stop at the same step
    return total * (world / total_weight) + 0 * sums[0], sums[0] / total_weight
