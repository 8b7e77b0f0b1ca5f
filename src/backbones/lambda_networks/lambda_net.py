"""LambdaNet: lambda layers on any modality, one tower for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError
from datamodules.core.checks import check_counts, check_range

from ..base import Backbone, real_inputs
from .lambda_layer import LambdaLayer
from .masked_norm import normalise, rows

DEEPEST = 1000  # blocks


class LambdaBlock(nn.Module):
    """A ResNet bottleneck with a lambda layer in place of the 3x3 convolution (LambdaNetworks, section 4).

    A stride is an average pool after the lambda layer.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        stride: int,
        key_depth: int,
        heads: int,
        grid: Sequence[int] | None,
        scope: int | None = None,
    ) -> None:
        super().__init__()
        width = max(heads, dim_out // 4 // heads * heads)
        self.stride = stride
        self.narrow = nn.Sequential(nn.Conv1d(dim, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        if grid is not None and scope is not None:
            self.mix = LambdaLayer(width, width, key_depth, heads, scope=(scope,) * len(grid))
        else:
            self.mix = LambdaLayer(width, width, key_depth, heads, grid=grid)
        last = nn.BatchNorm2d(dim_out)
        nn.init.zeros_(last.weight)  # the block starts as the identity
        self.widen = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv1d(width, dim_out, 1, bias=False), last)
        self.shortcut = nn.Identity() if dim == dim_out else nn.Conv1d(dim, dim_out, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Maps (B, dim, *grid) and its mask (B, *grid) to (B, dim_out, *grid / stride) and the mask of that grid."""
        y = on_elements(self.narrow, x, mask)
        y = pool(self.mix(y, mask=mask), self.stride, mask)
        x = pool(x, self.stride, mask)
        if mask is not None:
            mask = pool(mask[:, None].float(), self.stride)[:, 0] > 0
        return F.relu(on_elements([self.shortcut], x, mask) + on_elements(self.widen, y, mask)), mask


def on_elements(layers: Iterable[nn.Module], x: Tensor, mask: Tensor | None) -> Tensor:
    """Applies layers for single elements, 1x1 convolutions among them, to (B, C, *grid) with a mask (B, *grid)."""
    y = rows(x)
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            y = normalise(layer, y, None if mask is None else mask.flatten(1))
        elif isinstance(layer, nn.Conv1d):
            y = F.linear(y, layer.weight[..., 0])
        else:
            y = layer(y)
    return y.unflatten(1, x.shape[2:]).movedim(-1, 1)


def pool(x: Tensor, stride: int, mask: Tensor | None = None) -> Tensor:
    """Averages blocks of `stride` cells along every axis, those in the mask; blocks at the border average those they have."""
    if stride == 1:
        return x
    pools = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
    block = tuple(min(stride, length) for length in x.shape[2:])

    def average(x: Tensor) -> Tensor:
        return pools[x.dim() - 2](x, block, block, ceil_mode=True)

    if mask is None:
        return average(x)
    real = mask[:, None].to(x.dtype)
    return average(x.masked_fill(~mask[:, None], 0)) / average(real).clamp(min=torch.finfo(x.dtype).tiny)


class LambdaNet(Backbone):
    """One tower of lambda blocks per modality: 1-D on audio, 2-D on images, 3-D on video, content only on sets.

    Args:
        data_spec: spec of the data, any number of modalities.
        patch: for each modality, the number of cells along each axis to merge before the first block; 1 where left out.
        widths: channels of each stage; the grid is halved between stages.
        blocks_per_stage: lambda blocks in each stage.
        key_depth: k of the lambda layers, depth of queries and keys.
        heads: h of the lambda layers, number of query heads.
        scope: r of the lambda layers along every axis, odd; None for global layers. Ignored on sets.
    """

    def __init__(
        self,
        data_spec: DataSpec,
        patch: dict[str, int] | None = None,
        widths: Sequence[int] = (128, 256),
        blocks_per_stage: int = 2,
        key_depth: int = 16,
        heads: int = 4,
        scope: int | None = None,
    ) -> None:
        super().__init__()
        check_counts(patch=patch, widths=widths, key_depth=key_depth, heads=heads, scope=scope)
        check_range(1, DEEPEST, blocks_per_stage=blocks_per_stage, stages=len(widths))
        if unknown := set(patch or {}) - set(data_spec.modalities):
            raise UserError(f"patch names {sorted(unknown)}, the data have {list(data_spec.modalities)}")
        self.data_spec = data_spec
        self.num_features = widths[-1]
        self.elements = sum(modality.elements for modality in data_spec.modalities.values())
        self.towers = nn.ModuleDict(
            {
                name: Tower(modality, (patch or {}).get(name, 1), widths, blocks_per_stage, key_depth, heads, scope)
                for name, modality in data_spec.modalities.items()
            }
        )

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Returns the features of all towers, each averaged over its elements: (B, modalities, D)."""
        arrays = real_inputs(self.data_spec, inputs)
        return torch.stack([tower(arrays[name]) for name, tower in self.towers.items()], dim=1)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules that FSDP shards individually: the blocks of all towers."""
        towers: Any = self.towers.values()
        return [block for tower in towers for block in tower.blocks]

    def receptive_field(self) -> int:
        """Receptive field of the first lambda layers: all elements of their modality, summed over modalities."""
        return self.elements


class Tower(nn.Module):
    """Lambda blocks on one modality, followed by the mean over its elements: (B, D)."""

    def __init__(
        self,
        modality: ModalitySpec,
        patch: int,
        widths: Sequence[int],
        blocks_per_stage: int,
        key_depth: int,
        heads: int,
        scope: int | None,
    ) -> None:
        super().__init__()
        self.patch, self.grid = patch, modality.grid
        grid = None if modality.grid is None else tuple(ceil(length / patch) for length in modality.grid)
        cells = 1 if modality.grid is None else patch ** len(modality.grid)
        dim = widths[0]
        self.embed = nn.Sequential(
            nn.Conv1d((modality.channels + modality.position_channels) * cells, dim, 1, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
        )
        blocks = []
        for stage, width in enumerate(widths):
            for block in range(blocks_per_stage):
                stride = 2 if stage and block == 0 and grid is not None else 1
                blocks.append(LambdaBlock(dim, width, stride, key_depth, heads, grid, scope))
                dim = width
                grid = None if grid is None else tuple(ceil(length / stride) for length in grid)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, byte_array: ByteArray) -> Tensor:
        x, mask = byte_array.concat().transpose(1, 2), byte_array.mask
        if byte_array.grid != self.grid:
            raise UserError(
                f"LambdaNet was built for grid {self.grid} but the batch has grid {byte_array.grid}: "
                "build it with the spec of these data"
            )
        if self.grid is not None:
            x = merge_cells(x.unflatten(2, self.grid), self.patch)
            if mask is not None:
                mask = merge_cells(mask[:, None].float().unflatten(2, self.grid), self.patch).amax(1) > 0
        x = on_elements(self.embed, x, mask)
        for block in self.blocks:
            x, mask = block(x, mask)
        if mask is None:
            return x.flatten(2).mean(dim=-1)
        real = mask.flatten(1)[:, None]
        return x.flatten(2).masked_fill(~real, 0).sum(-1) / real.sum(-1).clamp(min=1)


def merge_cells(x: Tensor, patch: int) -> Tensor:
    """(B, C, *grid) to (B, C * patch^d, *grid / patch), zero-padded where the grid is not divisible."""
    if patch == 1:
        return x
    b, c, *grid = x.shape
    padding = [-length % patch for length in grid]
    x = F.pad(x, [side for after in reversed(padding) for side in (0, after)])
    split = [n for length in x.shape[2:] for n in (length // patch, patch)]
    axes = len(grid)
    x = x.reshape(b, c, *split).permute(0, 1, *range(3, 3 + 2 * axes, 2), *range(2, 2 + 2 * axes, 2))
    return x.reshape(b, c * patch**axes, *x.shape[2 + axes :])
