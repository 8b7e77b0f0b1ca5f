"""MixUp and CutMix: mix each image of a training step, and its target, with the one before it."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from ..core.errors import UserError
from ..core.order import rank_and_world


class Mixing:
    """torchvision's MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019), on the device.

    If both are on, each step uses one of them, with equal probability. A step is mixed in the same way on any number of
    ranks: they exchange its images first.

    Args:
        mixup: alpha of the Beta distribution that the mixing weight is drawn from, once per step; 0 turns MixUp off.
        cutmix: the same for CutMix.
        num_classes: number of classes.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        from torchvision.transforms.v2 import CutMix, MixUp

        for option, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha < math.inf:
                raise UserError(
                    f"{option} {alpha} is not a valid alpha of a Beta distribution: use a positive number, or 0 for off"
                )
        kinds = [(MixUp, mixup), (CutMix, cutmix)]
        self.transforms = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]

    def __call__(self, compact: dict) -> dict:
        """Mixes a compact batch with `image` (B, H, W) or (B, H, W, channels), `target` (B,) and `mix_seed` (B,) int64.

        Returns:
            The batch with float images (B, H, W, channels) and targets (B, classes) that sum to 1.
        """
        images, target, seeds = (whole_step(compact[name]) for name in ("image", "target", "mix_seed"))
        rank, world = rank_and_world()
        own = torch.arange(rank, len(images), world, device=images.device)
        # torchvision mixes each row with the one before it, so put its partner before every own row; -1 is the last
        pairs = torch.stack([own - 1, own], dim=1).flatten()
        images = images[pairs] if images.dim() == 4 else images[pairs, ..., None]
        with torch.random.fork_rng(devices=[]):  # torchvision only draws from the global generator
            torch.default_generator.manual_seed(int(seeds[0]))
            transform = self.transforms[int(torch.randint(len(self.transforms), ()))]
            mixed, scores = transform(images.movedim(-1, 1).float(), target[pairs])
        return {**compact, "image": mixed[1::2].movedim(1, -1), "target": scores[1::2]}


def whole_step(rows: Tensor) -> Tensor:
    """Gathers a step's rows from all ranks, in the order of a single rank: rank r of W has rows r, r+W, r+2W, ..."""
    _, world = rank_and_world()
    if world == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world)]
    dist.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
