"""The lambda layer (Bello 2021, arXiv 2102.08602)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import UserError
from datamodules.core.checks import check_counts

from .masked_norm import normalise, rows
from .position_lambda import convolved, position_lambdas


class LambdaLayer(nn.Module):
    """Transforms each query by a linear map, its lambda, that summarises the context (section 2).

    The lambda depends on the content of the context and on its position relative to the query. Queries and context lie
    on grids with any number of axes, or are sets. With neither `grid` nor `scope` the layer uses content only.

    Args:
        dim: input channels.
        dim_out: output channels, divisible by `heads`.
        key_depth: k, depth of queries and keys.
        heads: h, number of query heads.
        intra_depth: u, intra-depth of keys and values.
        grid: the largest grid, such as (28, 28). Embeddings for all its relative positions are learned; smaller grids work.
        scope: r, such as (23, 23), odd. Embeddings are learned up to (r - 1) / 2 away; beyond, only content counts. Works
            on grids of any size (lambda convolution, section 3.2).
        context_dim: channels of a separate context. Default: `dim`.
        embeddings: the embeddings of another layer, to share them within a stage (table 4).

    Raises:
        UserError: the options contradict each other.
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
        check_counts(dim=dim, dim_out=dim_out, key_depth=key_depth, heads=heads, intra_depth=intra_depth)
        check_counts(grid=grid, scope=scope, context_dim=context_dim)
        if dim_out % heads:
            raise UserError(
                f"LambdaLayer got dim_out {dim_out}, which is not divisible by heads {heads}: change one of them"
            )
        if grid is not None and scope is not None:
            raise UserError(
                f"LambdaLayer got both grid {grid} and scope {scope}: pass grid for a global layer or scope for a local one"
            )
        if scope is not None and any(r % 2 == 0 for r in scope):
            raise UserError(f"LambdaLayer got the even scope {tuple(scope)}: pass odd numbers")
        context_dim = dim if context_dim is None else context_dim
        k, h, u, v = key_depth, heads, intra_depth, dim_out // heads
        self.key_depth, self.heads, self.intra_depth, self.value_depth = k, h, u, v
        self.grid = None if grid is None else tuple(grid)
        self.to_queries = nn.Parameter(torch.randn(h * k, dim) * (k * dim) ** -0.5)
        self.to_keys = nn.Parameter(torch.randn(k * u, context_dim) * context_dim**-0.5)
        self.to_values = nn.Parameter(torch.randn(v * u, context_dim) * context_dim**-0.5)
        self.norm_queries = nn.BatchNorm2d(h * k)
        self.norm_values = nn.BatchNorm2d(v * u)
        self.register_parameter("position_bias", None)  # (k,), of timm's position lambdas; the paper has none
        table = [2 * length - 1 for length in grid] if grid is not None else scope
        if embeddings is not None and (table is None or embeddings.shape != (k, u, *table)):
            raise UserError(
                f"LambdaLayer got embeddings of shape {tuple(embeddings.shape)} but needs {(k, u, *(table or ()))}: "
                "share embeddings between layers with the same options"
            )
        if table is None:
            self.register_parameter("embeddings", None)
        else:
            # E in the paper: one embedding per relative position, key minus query
            self.embeddings = nn.Parameter(torch.randn(k, u, *table)) if embeddings is None else embeddings

    def forward(self, queries: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Applies the layer.

        Args:
            queries: (B, dim, *grid).
            context: (B, context_dim, *context_grid), the elements to summarise. Default: the queries.
            mask: (B, *context_grid), True for real elements of the context. What the others hold changes nothing, batch
                statistics included.

        Returns:
            (B, dim_out, *grid), with the channels last in memory.

        Raises:
            UserError: a grid is larger than the one that the layer was built for.
        """
        h, k, u, v = self.heads, self.key_depth, self.intra_depth, self.value_depth
        grid, context_grid = queries.shape[2:], (queries if context is None else context).shape[2:]
        self.check_grids(tuple(grid), tuple(context_grid))
        real = None if mask is None else mask.flatten(1)
        if mask is not None:  # 0 times what padding holds, in gradients of the weights, may be NaN
            if context is None:
                queries = queries.masked_fill(~mask[:, None], 0)
            else:
                context = context.masked_fill(~mask[:, None], 0)
        if context is None:
            weights = torch.cat([self.to_queries, self.to_keys, self.to_values])
            q, keys, values = F.linear(rows(queries), weights).split([h * k, k * u, v * u], dim=-1)
        else:
            q = F.linear(rows(queries), self.to_queries)
            keys, values = F.linear(rows(context), torch.cat([self.to_keys, self.to_values])).split([k * u, v * u], -1)
        q = normalise(self.norm_queries, q, real if context is None else None)
        values = normalise(self.norm_values, values, real)
        if real is not None:
            keys = keys.masked_fill(~real[..., None], torch.finfo(keys.dtype).min)  # finite: all may be masked
            values = values.masked_fill(~real[..., None], 0)
        # float32 at least: half precision cannot hold the small weights of a long softmax
        keys = keys.softmax(dim=1, dtype=torch.promote_types(keys.dtype, torch.float32)).to(values.dtype)
        values, keys = values.unflatten(-1, (v, u)), keys.unflatten(-1, (k, u))  # (B, m, v, u), (B, m, k, u)
        content = torch.bmm(keys.permute(0, 2, 3, 1).flatten(2), values.permute(0, 3, 1, 2).flatten(1, 2))  # (B, k, v)
        if self.position_bias is not None:
            content = content + self.position_bias[:, None]
        by_head = q.view(len(q), -1, k)  # (B, n h, k)
        if self.embeddings is None:
            y = torch.bmm(by_head, content)
        else:
            table = self.embeddings.to(q.dtype)
            lambdas = convolved if torch.compiler.is_exporting() else position_lambdas
            positions = lambdas(q.view(len(q), *grid, h, k), table, values.unflatten(1, context_grid))
            y = torch.baddbmm(positions.view(len(q), -1, v), by_head, content)
        return y.view(len(q), *grid, h * v).movedim(-1, 1)

    def check_grids(self, grid: tuple[int, ...], context_grid: tuple[int, ...]) -> None:
        if self.embeddings is None:
            return
        axes = self.embeddings.dim() - 2
        largest = self.grid or (float("inf"),) * axes
        for found in (grid, context_grid):
            if len(found) != axes or any(length > limit for length, limit in zip(found, largest, strict=True)):
                expected = f"grids up to {self.grid}" if self.grid else f"grids with {axes} axes"
                raise UserError(f"LambdaLayer was built for {expected} but got {found}: build it for that grid")
