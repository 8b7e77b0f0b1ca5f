"""MixUp and CutMix: each picture of a training step mixed with the one before it, and their targets alike."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from ..core.errors import UserError
from ..core.order import rank_and_world


class Mixing:
    """torchvision's MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019), on the device, on pictures in raster order.

    mixup, cutmix: alpha of the Beta distribution that an example's share is drawn of, one draw a step; 0 leaves it out.
        With both, each step uses one of the two, at even chances.

    A step is mixed the same way on any number of ranks: they exchange its pictures first.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        from torchvision.transforms.v2 import CutMix, MixUp

        for option, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha < 0:
                raise UserError(
                    f"{option} {alpha} is no alpha of a Beta distribution: give a number above 0, or 0 for off"
                )
        kinds = [(MixUp, mixup), (CutMix, cutmix)]
        self.transforms = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]

    def __call__(self, compact: dict) -> dict:
        """A compact batch with `image` (B, H, W) or (B, H, W, channels), `target` (B,) and `mix_seed` (B,) int64.

        Returns it with float images (B, H, W, channels) and targets (B, classes) that add up to 1.
        """
        images, target, seeds = (whole_step(compact[name]) for name in ("image", "target", "mix_seed"))
        rank, world = rank_and_world()
        own = torch.arange(rank, len(images), world, device=images.device)
        # torchvision mixes each row with the one before it, so every own row follows its partner; -1 is the last
        pairs = torch.stack([own - 1, own], dim=1).flatten()
        images = images[pairs] if images.dim() == 4 else images[pairs, ..., None]
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator alone
            torch.default_generator.manual_seed(int(seeds[0]))
            transform = self.transforms[int(torch.randint(len(self.transforms), ()))]
            mixed, scores = transform(images.movedim(-1, 1).float(), target[pairs])
        return {**compact, "image": mixed[1::2].movedim(1, -1), "target": scores[1::2]}


def whole_step(rows: Tensor) -> Tensor:
    """A step's rows of all ranks, in the order of one rank: rank r of W has rows r, r+W, r+2W, ..."""
    _, world = rank_and_world()
    if world == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world)]
    dist.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
