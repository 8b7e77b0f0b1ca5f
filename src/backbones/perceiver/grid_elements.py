"""Elements of a grid whose positions are a sum of one table per axis: read without assembling x^ (docs/derivations.md).

With the position of cell (y, x) = lead[y] + trail[x], a row q = (q_v, q_p, q_u) of the three parts of an element, u the
modality vector, and x^ = (x - mean) rstd,
    score(n, m) = rstd_m (q_v . values_m + (q_p . lead[y] + q_u . u) + q_p . trail[x] - mean_m sum(q))
    read(n)     = (sum_m w values_m, sum_y (sum_x w) lead[y] + sum_x (sum_y w) trail[x], sum_m w u) - sum_m w mean_m
with w = weight rstd. A pair costs Cv + 3 multiplications and additions in each product instead of Cv + P + U. More than two
axes are two: the leading ones and the trailing ones together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor

from .elements import EPSILON, LOG2_E, chunk_slices


@dataclass(frozen=True)
class GridElements:
    """Elements of an L x W grid.

    Attributes:
        values: (B, M, Cv), in row-major order.
        vector: the modality vector (U,) or None.
        mask: (B, M), True where an element is real, or None.
        mean: (B, M), of the LayerNorm over all C channels.
        rstd: (B, M), one over the LayerNorm's standard deviation.
        lead: (L, P), what a cell's leading coordinate adds to its position.
        trail: (W, P), what its trailing coordinate adds.
        factors: (B, L, Cv + 3, W): values, -mean and 1, times rstd; and 1.
        start: row of the grid that is the first here.
    """

    values: Tensor
    vector: Tensor | None
    mask: Tensor | None
    mean: Tensor
    rstd: Tensor
    lead: Tensor
    trail: Tensor
    factors: Tensor
    start: int = 0

    @property
    def columns(self) -> dict[str, slice]:
        """The channels of each part of x."""
        ends = [self.values.shape[-1], self.values.shape[-1] + self.lead.shape[-1]]
        return {"values": slice(0, ends[0]), "positions": slice(*ends), "vector": slice(ends[1], None)}

    def examples(self, part: slice) -> GridElements:
        """Those of some examples."""
        return replace(
            self,
            values=self.values[part],
            mask=None if self.mask is None else self.mask[part],
            mean=self.mean[part],
            rstd=self.rstd[part],
            factors=self.factors[part],
        )

    def chunks(self, size: int, dtype: torch.dtype) -> Iterator[tuple[slice, GridElements]]:
        """Whole rows of the grid, at most `size` elements at a time but at least one row."""
        width = len(self.trail)
        for rows in chunk_slices(len(self.lead), max(1, size // width)):
            part = slice(rows.start * width, rows.stop * width)
            yield (
                part,
                replace(
                    self,
                    values=self.values[:, part],
                    mask=None if self.mask is None else self.mask[:, part],
                    mean=self.mean[:, part],
                    rstd=self.rstd[:, part],
                    factors=self.factors[:, rows],
                    start=rows.start,
                ),
            )

    def tables(self, rows: Tensor, scale: float) -> tuple[Any, ...]:
        """What `scores` needs of the rows (B, R, C): the parts (B, Cv + 1, R) that meet each element's own numbers, and
        those that meet its leading (B, L, R) and trailing coordinate (B, W, R)."""
        rows = (rows.to(self.factors.dtype) * scale).transpose(1, 2)
        of_values, of_positions, of_vector = (rows[:, part] for part in self.columns.values())
        own = torch.cat([of_values, rows.sum(dim=1, keepdim=True)], dim=1)
        lead = self.lead @ of_positions
        if self.vector is not None:
            lead = lead + self.vector.to(rows.dtype) @ of_vector[:, None]
        return own, lead, self.trail @ of_positions

    def scores(self, tables: tuple[Any, ...], offset: Tensor) -> Tensor:
        """scale x^ rows' + offset (B, R), of a chunk: (B, m, R)."""
        own, lead, trail = tables
        height = self.factors.shape[1]
        lead = lead[:, self.start : self.start + height, None]  # (B, L, 1, R)
        parts = [own[:, None].expand(-1, height, -1, -1), lead, offset[:, None, None].expand_as(lead)]
        scores = trail[:, None] * self.factors[..., -2, :, None]  # (B, L, W, R)
        factors = self.factors.flatten(0, 1).transpose(1, 2)
        scores.flatten(0, 1).baddbmm_(factors, torch.cat(parts, dim=2).flatten(0, 1))
        return scores.flatten(1, 2)

    def zero_sums(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What `add` sums over chunks: (B, Cv + 1, R), (B, L, R) and (B, W, R)."""
        lengths = self.values.shape[-1] + 1, len(self.lead), len(self.trail)
        return tuple(rows.new_zeros((len(rows), length, rows.shape[1]), dtype=dtype) for length in lengths)

    def add(self, sums: tuple[Tensor, ...], weights: Tensor) -> Tensor:
        """Adds weights' x^ of a chunk to the sums; overwrites the weights. Returns the weights' totals: (B, R)."""
        own, lead, trail = sums
        batch, height, channels, width = self.factors.shape
        weights = weights.view(batch, height, width, -1)
        found = torch.bmm(self.factors.flatten(0, 1), weights.flatten(0, 1)).view(batch, height, channels, -1)
        lead[:, self.start : self.start + height] += found[:, :, -2]
        rest = found.sum(dim=1)
        own += rest[:, :-2]
        trail += weights.mul_(self.factors[..., -2, :, None]).sum(dim=1)
        return rest[:, -1]

    def read(self, sums: tuple[Tensor, ...]) -> Tensor:
        """weights' x^ of all chunks: (B, R, C)."""
        own, lead, trail = (kept.transpose(1, 2) for kept in sums)
        parts = [own[..., :-1], lead @ self.lead + trail @ self.trail]
        if self.vector is not None:
            parts.append(lead.sum(dim=-1, keepdim=True) * self.vector.to(lead.dtype))
        return torch.cat(parts, dim=-1).add_(own[..., -1:])


def read_with_kernel(queries: Tensor, elements: GridElements) -> Tensor:
    """softmax(queries x^') x^ by `grid_read_triton`: (B, R, C) to (B, R, C). No gradient of the elements."""
    from .grid_read_triton import read_grid

    own, lead, trail = elements.tables(queries, LOG2_E)
    *sums, _ = read_grid(own, lead, trail, elements.values, elements.mean, elements.rstd, elements.mask)
    return elements.read(tuple(sums))


Moments = tuple[int, Tensor, Tensor]  # number of channels; variance and mean over them


def moments(part: Tensor) -> Moments:
    """Of one part of every element, (..., C). torch.var_mean takes some six times as long."""
    mean = part.mean(dim=-1)
    return part.shape[-1], (part - mean[..., None]).square_().mean(dim=-1), mean


def joint_moments(parts: list[Moments]) -> tuple[Tensor, Tensor]:
    """The LayerNorm's mean and 1 / std of every element, (B, M), from those of its parts, the values (B, M) first.

    Nothing is concatenated, and positions that all examples share are looked at once.
    """
    channels = sum(width for width, _, _ in parts)
    mean = reduce(torch.add, (width / channels * own for width, _, own in parts))
    variance = reduce(torch.add, (width / channels * (var + (own - mean).square()) for width, var, own in parts))
    return mean, (variance + EPSILON).rsqrt()


def outer_moments(lead: Tensor, trail: Tensor) -> Moments:
    """`moments` of all sums of a row of lead (L, P) and a row of trail (W, P), without the sums: each (L W,)."""
    channels = lead.shape[-1]
    own = [(table.mean(dim=-1), table - table.mean(dim=-1, keepdim=True)) for table in (lead, trail)]
    (lead_mean, lead), (trail_mean, trail) = own
    squares = lead.square().sum(dim=-1)[:, None] + trail.square().sum(dim=-1) + 2 * lead @ trail.T
    return channels, (squares / channels).flatten(), (lead_mean[:, None] + trail_mean).flatten()


def leading_axes(grid: tuple[int, ...]) -> int:
    """How many axes lead: the others have at least 128 cells together, if possible, for long inner loops.

    One core, 512 rows of 16 x 28 x 28 patches with 384 channels: 0.115 s with 16 x 784 and 0.26 s with 448 x 28.
    """
    fitting = [axes for axes in range(1, len(grid)) if prod(grid[axes:]) >= 128]
    return max(fitting, default=1)


def grid_factors(values: Tensor, mean: Tensor, rstd: Tensor, height: int) -> Tensor:
    """`GridElements.factors`, from values (B, M, Cv), mean and rstd (B, M) and the rows of the grid."""
    own = torch.cat([values, -mean[..., None], torch.ones_like(mean)[..., None]], dim=-1) * rstd[..., None]
    factors = torch.cat([own, torch.ones_like(mean)[..., None]], dim=-1)
    return factors.unflatten(1, (height, -1)).transpose(2, 3).contiguous()
