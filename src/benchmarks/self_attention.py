"""The self-attention layers that the LambdaNetworks paper compares with the lambda layer: global, axial and local.

All map (B, C, H, W) to (B, C, H, W) with C / heads channels per head. Relative positions are learned vectors, one per
offset, that are multiplied with the query (Ramachandran et al. 2019; Bello et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import UserError


class SelfAttention2d(nn.Module):
    """Base class: queries, keys and values from a 1x1 convolution.

    Args:
        dim: input channels.
        dim_out: output channels, divisible by `heads`.
        heads: attention heads.
    """

    def __init__(self, dim: int, dim_out: int, heads: int = 8) -> None:
        super().__init__()
        if dim_out % heads:
            raise UserError(
                f"{type(self).__name__}: dim_out {dim_out} is not divisible by heads {heads}: change one of them"
            )
        self.heads, self.depth = heads, dim_out // heads
        self.query_key_value = nn.Conv2d(dim, 3 * dim_out, 1, bias=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns scaled queries, keys and values: each (B, h, d, H, W)."""
        query, key, value = self.query_key_value(x).unflatten(1, (3, self.heads, self.depth)).unbind(1)
        return query * self.depth**-0.5, key, value


class GlobalAttention(SelfAttention2d):
    """Every element attends to all; relative positions are learned for grids up to `grid`."""

    def __init__(self, dim: int, dim_out: int, grid: tuple[int, int], heads: int = 8) -> None:
        super().__init__(dim, dim_out, heads)
        self.relative = nn.ParameterList(torch.randn(2 * side - 1, self.depth) * self.depth**-0.5 for side in grid)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        query, key, value = self.split(x)
        scores = torch.einsum("bhdyx,bhdij->bhyxij", query, key)
        scores = scores + axis_scores(query, self.relative[0], height, "bhdyx,yid->bhyxi")[..., None]
        scores = scores + axis_scores(query, self.relative[1], width, "bhdyx,xjd->bhyxj")[..., None, :]
        weights = scores.flatten(-2).softmax(-1).unflatten(-1, (height, width))
        return torch.einsum("bhyxij,bhdij->bhdyx", weights, value).flatten(1, 2)


class AxialAttention(SelfAttention2d):
    """Every element attends to its column, then to its row (Ho et al. 2019; Wang et al. 2020); see GlobalAttention."""

    def __init__(self, dim: int, dim_out: int, grid: tuple[int, int], heads: int = 8) -> None:
        super().__init__(dim, dim_out, heads)
        self.rows = nn.Conv2d(dim_out, 3 * dim_out, 1, bias=False)
        self.relative = nn.ParameterList(torch.randn(2 * side - 1, self.depth) * self.depth**-0.5 for side in grid)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        scores = torch.einsum("bhdyx,bhdix->bhyxi", query, key)
        scores = scores + axis_scores(query, self.relative[0], x.shape[2], "bhdyx,yid->bhyxi")
        x = torch.einsum("bhyxi,bhdix->bhdyx", scores.softmax(-1), value).flatten(1, 2)
        query, key, value = self.rows(x).unflatten(1, (3, self.heads, self.depth)).unbind(1)
        query = query * self.depth**-0.5
        scores = torch.einsum("bhdyx,bhdyj->bhyxj", query, key)
        scores = scores + axis_scores(query, self.relative[1], x.shape[3], "bhdyx,xjd->bhyxj")
        return torch.einsum("bhyxj,bhdyj->bhdyx", scores.softmax(-1), value).flatten(1, 2)


class LocalAttention(SelfAttention2d):
    """Every element attends to the scope x scope elements around it, zero-padded at the border."""

    def __init__(self, dim: int, dim_out: int, scope: int = 7, heads: int = 8) -> None:
        super().__init__(dim, dim_out, heads)
        self.scope = scope
        self.relative = nn.Parameter(torch.randn(self.depth, scope * scope) * self.depth**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        scores = torch.einsum("bhdyx,bhdyxr->bhyxr", query, self.neighbours(key))
        scores = scores + torch.einsum("bhdyx,dr->bhyxr", query, self.relative)
        return torch.einsum("bhyxr,bhdyxr->bhdyx", scores.softmax(-1), self.neighbours(value)).flatten(1, 2)

    def neighbours(self, x: Tensor) -> Tensor:
        """(B, h, d, H, W) to the neighbourhood of every element (B, h, d, H, W, scope^2)."""
        half = self.scope // 2
        padded = F.pad(x, (half, half, half, half))
        return padded.unfold(3, self.scope, 1).unfold(4, self.scope, 1).flatten(-2)


def axis_scores(query: Tensor, relative: Tensor, length: int, equation: str) -> Tensor:
    """Scores of the relative positions along one axis, key minus query."""
    middle = len(relative) // 2
    if length > middle + 1:
        raise UserError(
            f"the attention layer was built for axes up to {middle + 1} long but got {length}: build it for that grid"
        )
    offsets = torch.arange(length)[None] - torch.arange(length)[:, None] + middle
    return torch.einsum(equation, query, relative[offsets.to(relative.device)])
