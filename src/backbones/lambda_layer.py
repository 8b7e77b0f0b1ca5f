"""The lambda layer (Bello 2021, arXiv 2102.08602)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from datamodules import UserError


class LambdaLayer(nn.Module):
    """Every query applies a small linear map, its lambda, that summarises the context and where it stands relative to
    the query (section 2). Global context; queries and context on the same grid of any number of axes.

    dim, dim_out: channels in and out; dim_out divides by heads.
    key_depth: k, depth of queries and keys. heads: h. intra_depth: u.
    grid: the largest grid, such as (28, 28), whose relative positions the layer learns; smaller ones use its centre.
        None: content only, for sets without positions.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        key_depth: int = 16,
        heads: int = 4,
        intra_depth: int = 1,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if dim_out % heads:
            raise UserError(f"dim_out {dim_out} does not divide by heads {heads}: change one")
        k, h, u, v = key_depth, heads, intra_depth, dim_out // heads
        self.key_depth, self.heads, self.intra_depth, self.value_depth = k, h, u, v
        self.grid = None if grid is None else tuple(grid)
        self.to_queries = nn.Linear(dim, h * k, bias=False)
        self.to_keys = nn.Linear(dim, k * u, bias=False)
        self.to_values = nn.Linear(dim, v * u, bias=False)
        self.norm_queries = nn.BatchNorm1d(h * k)
        self.norm_values = nn.BatchNorm1d(v * u)
        nn.init.normal_(self.to_queries.weight, std=(k * dim) ** -0.5)
        nn.init.normal_(self.to_keys.weight, std=dim**-0.5)
        nn.init.normal_(self.to_values.weight, std=dim**-0.5)
        if self.grid is not None:
            # E, one row per relative position: key minus query, along every axis from -(L - 1) to L - 1
            self.embeddings = nn.Parameter(torch.randn(*(2 * length - 1 for length in self.grid), k, u))

    def forward(self, queries: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """queries (B, dim, *grid) to (B, dim_out, *grid).

        context: (B, dim, *grid), what is summarised; the queries themselves if left out.
        mask: (B, *grid), True where a context element is real.
        """
        b, _, *grid = queries.shape
        k, h, u, v = self.key_depth, self.heads, self.intra_depth, self.value_depth
        context = queries if context is None else context
        x, c = queries.flatten(2).transpose(1, 2), context.flatten(2).transpose(1, 2)
        q = self.norm_queries(self.to_queries(x).transpose(1, 2)).unflatten(1, (h, k))  # (B, h, k, n)
        values = self.norm_values(self.to_values(c).transpose(1, 2)).unflatten(1, (v, u))  # (B, v, u, m)
        keys = self.to_keys(c).transpose(1, 2).unflatten(1, (k, u))  # (B, k, u, m)
        if mask is not None:
            real = mask.flatten(1)[:, None, None, :]
            keys = keys.masked_fill(~real, torch.finfo(keys.dtype).min)  # finite: a context may be masked whole
            values = values * real
        content = torch.einsum("bkum,bvum->bkv", keys.softmax(dim=-1), values)
        y = torch.einsum("bhkn,bkv->bhvn", q, content)
        if self.grid is not None:
            # scores first, then values: h/v + h/k of the products that making each query's lambda (k x v) takes
            scores = torch.einsum("bhkn,nmku->bhunm", q, self.relative_embeddings(tuple(grid), x.device))
            y = y + torch.einsum("bhunm,bvum->bhvn", scores, values)
        return y.reshape(b, h * v, *grid)

    def relative_embeddings(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        """E for every pair of query and key of a grid: (n, m, k, u)."""
        if (
            self.grid is None
            or len(grid) != len(self.grid)
            or any(length > most for length, most in zip(grid, self.grid, strict=True))
        ):
            raise UserError(
                f"LambdaLayer learned positions up to grid {self.grid}, got {grid}: build it with that grid"
            )
        return self.embeddings.flatten(0, -3)[relative_rows(grid, self.grid).to(device)]


@cache
def relative_rows(grid: tuple[int, ...], largest: tuple[int, ...]) -> Tensor:
    """(n, m) row of the table of `largest`'s relative positions for each query and key of `grid`, key minus query."""
    axes = torch.meshgrid(*(torch.arange(length) for length in grid), indexing="ij")
    rows = torch.zeros(axes[0].numel(), axes[0].numel(), dtype=torch.long)
    for axis, most in zip(axes, largest, strict=True):
        place = axis.flatten()
        rows = rows * (2 * most - 1) + (place[None, :] - place[:, None] + most - 1)
    return rows
