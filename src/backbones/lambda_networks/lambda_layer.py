"""The lambda layer (Bello 2021, arXiv 2102.08602)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules import UserError

from .position_lambda import read_positions


class LambdaLayer(nn.Module):
    """Every query applies a small linear map, its lambda, that summarises the context and where it stands relative to
    the query (section 2). Queries and context lie on grids of any number of axes, or are sets.

    dim, dim_out: channels in and out; dim_out divides by heads.
    key_depth: k, depth of queries and keys. heads: h. intra_depth: u.
    grid: the largest grid, such as (28, 28), whose relative positions are learned; any grid up to it is taken.
    scope: r, such as (23, 23), odd: positions are learned up to (r - 1) / 2 away and what is farther is seen by its content
        alone; any grid is taken (lambda convolution, section 3.2).
    Neither grid nor scope: content only, for sets.
    context_dim: channels of a separate context; dim if left out.
    embeddings: another layer's, to share them within a stage (table 4).
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        key_depth: int = 16,
        heads: int = 4,
        intra_depth: int = 1,
        grid: Sequence[int] | None = None,
        scope: Sequence[int] | None = None,
        context_dim: int | None = None,
        embeddings: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        if dim_out % heads:
            raise UserError(f"dim_out {dim_out} does not divide by heads {heads}: change one")
        if grid is not None and scope is not None:
            raise UserError(
                f"LambdaLayer got grid {grid} and scope {scope}: give grid for a global layer, scope for a local"
            )
        if scope is not None and any(r % 2 == 0 for r in scope):
            raise UserError(f"LambdaLayer's scope {tuple(scope)} has no middle: give odd numbers")
        context_dim = dim if context_dim is None else context_dim
        k, h, u, v = key_depth, heads, intra_depth, dim_out // heads
        self.key_depth, self.heads, self.intra_depth, self.value_depth = k, h, u, v
        self.grid = None if grid is None else tuple(grid)
        self.to_queries = nn.Parameter(torch.randn(h * k, dim) * (k * dim) ** -0.5)
        self.to_keys = nn.Parameter(torch.randn(k * u, context_dim) * context_dim**-0.5)
        self.to_values = nn.Parameter(torch.randn(v * u, context_dim) * context_dim**-0.5)
        self.norm_queries = nn.BatchNorm1d(h * k)
        self.norm_values = nn.BatchNorm1d(v * u)
        table = [2 * length - 1 for length in grid] if grid is not None else scope
        if embeddings is not None and (table is None or embeddings.shape != (k, u, *table)):
            raise UserError(
                f"shared embeddings are {tuple(embeddings.shape)}, this layer needs {(k, u, *(table or ()))}"
            )
        if table is None:
            self.register_parameter("embeddings", None)
        else:
            # E: one per relative position, key minus query
            self.embeddings = nn.Parameter(torch.randn(k, u, *table)) if embeddings is None else embeddings

    def forward(self, queries: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """queries (B, dim, *grid) to (B, dim_out, *grid).

        context: (B, context_dim, *its grid), what is summarised; the queries themselves if left out.
        mask: (B, *context's grid), True where a context element is real.
        """
        h, k, u, v = self.heads, self.key_depth, self.intra_depth, self.value_depth
        grid, context_grid = queries.shape[2:], (queries if context is None else context).shape[2:]
        self.check_grids(tuple(grid), tuple(context_grid))
        if context is None:
            weights = torch.cat([self.to_queries, self.to_keys, self.to_values])
            q, keys, values = project(weights, queries).split([h * k, k * u, v * u], dim=1)
        else:
            q = project(self.to_queries, queries)
            keys, values = project(torch.cat([self.to_keys, self.to_values]), context).split([k * u, v * u], dim=1)
        q, values = self.norm_queries(q), self.norm_values(values)
        if mask is not None:
            real = mask.flatten(1)[:, None]
            keys = keys.masked_fill(~real, torch.finfo(keys.dtype).min)  # finite: a context may be masked whole
            values = values * real
        # float32 at least: half precision cannot hold the small weights of a long softmax
        keys = keys.softmax(dim=-1, dtype=torch.promote_types(keys.dtype, torch.float32)).to(values.dtype)
        values = values.unflatten(1, (v, u))
        content = torch.bmm(keys.unflatten(1, (k, u)).flatten(2), values.flatten(2).transpose(1, 2))  # (B, k, v)
        q = q.unflatten(1, (h, k))
        y = torch.matmul(content.transpose(1, 2)[:, None], q)  # (B, h, v, n)
        if self.embeddings is not None:
            table = self.embeddings.to(q.dtype)
            positions = read_positions(q.unflatten(-1, grid), table, values.unflatten(-1, context_grid))
            y += positions.flatten(3)
        return y.reshape(len(y), h * v, *grid)

    def check_grids(self, grid: tuple[int, ...], context_grid: tuple[int, ...]) -> None:
        if self.embeddings is None:
            return
        axes = self.embeddings.dim() - 2
        most = self.grid or (float("inf"),) * axes
        for found in (grid, context_grid):
            if len(found) != axes or any(length > limit for length, limit in zip(found, most, strict=True)):
                learned = f"positions up to grid {self.grid}" if self.grid else f"positions along {axes} axes"
                raise UserError(f"LambdaLayer learned {learned}, got {found}: build it with that grid")


def project(weight: Tensor, x: Tensor) -> Tensor:
    """weight (O, C) on the channels of x (B, C, *grid): (B, O, n)."""
    return torch.bmm(weight.expand(len(x), -1, -1), x.flatten(2))
