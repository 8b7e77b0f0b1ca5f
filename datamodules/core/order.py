"""Sample order as a pure function of (seed, epoch, index): resumable, and the same for any number of workers and ranks.

Every epoch has one global order. Step s takes entries s*B to (s+1)*B of it, where B is the total batch size over all
ranks, and rank r of W takes entries r, r+W, r+2W, ... of the step. So the samples of a step do not depend on W.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from .errors import UserError


class SampleRef(NamedTuple):
    """What a worker needs to load one sample: its index, the epoch, and whether it is real (False: padding)."""

    index: int
    epoch: int
    real: bool


def hashed_seed(*parts: object) -> int:
    """A 63-bit seed from any printable values, the same on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def sample_generator(seed: int, epoch: int, key: str) -> torch.Generator:
    """The generator for one sample in one epoch (crop, start of a clip), independent of the worker that loads it."""
    return torch.Generator().manual_seed(hashed_seed(seed, epoch, key))


def epoch_order(size: int, seed: int, epoch: int) -> list[int]:
    """The shuffled order of one epoch."""
    generator = torch.Generator().manual_seed(hashed_seed("order", seed, epoch))
    return torch.randperm(size, generator=generator).tolist()


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks. Loaders are often built before the process group exists, so call this
    when iteration starts."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


class OrderedBatches(DistributedSampler):
    """Yields one list of SampleRef per step, for a DataLoader with `batch_size=None`.

    It is a DistributedSampler only so that Lightning calls `set_epoch` and does not replace it with its own.

    Args:
        size: number of samples.
        batch_size: samples per step over all ranks; must be divisible by the number of ranks.
        seed: seed of the order.
        training: True shuffles and drops the incomplete last step, so that all ranks have the same number of steps.
            False keeps the order and yields every sample once; the last step is padded with refs whose `real` is False.
        steps_done: returns the number of training steps taken so far, over all epochs. Iteration continues from there, in
            the order of the epoch that this step belongs to. By default iteration starts at the beginning of the
            epoch given to `set_epoch`.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, training: bool, steps_done: Callable[[], int] | None = None
    ) -> None:
        if training and size < batch_size:
            raise UserError(
                f"batch_size {batch_size} is larger than the number of training samples ({size}): lower --data.batch_size"
            )
        self.size, self.batch_size, self.seed, self.training = size, batch_size, seed, training
        self.epoch, self.steps_done = 0, steps_done

    def __len__(self) -> int:
        """Number of steps per epoch."""
        return self.size // self.batch_size if self.training else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleRef]]:
        rank, world = rank_and_world()
        if self.batch_size % world:
            raise UserError(f"batch_size {self.batch_size} is not divisible by {world} ranks: change --data.batch_size")
        epoch, first = (self.epoch if self.training else 0), 0
        if self.steps_done is not None:
            epoch, first = divmod(self.steps_done(), len(self))
        order = epoch_order(self.size, self.seed, epoch) if self.training else range(self.size)
        for step in range(first, len(self)):
            entries = range(step * self.batch_size + rank, (step + 1) * self.batch_size, world)
            yield [SampleRef(order[min(entry, self.size - 1)], epoch, entry < self.size) for entry in entries]
