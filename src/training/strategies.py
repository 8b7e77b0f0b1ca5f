"""How a model is spread over ranks: `ddp` copies it, `fsdp` shards it (torch's fully_shard). Both train alike, whatever the
number of ranks, and each loads the other's checkpoints.

A step's loss is the mean over the samples of all ranks, and batch normalisation takes its statistics from all of them
(batch_norm.py), so that the same global batch gives the same step on 1, 2 or 64 ranks.
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
