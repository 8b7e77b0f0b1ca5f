"""What queries read of values through embeddings of relative positions: exact, tile by tile, without lambdas of queries.

    y[b,h,v,n] = sum over k, u, m of  q[b,h,k,n] E[k,u,m-n] V[b,v,u,m]          (LambdaNetworks, section 2)

Scores first (q E, then V), the sums take h k + d products for each pair of query and context element; lambda first (E V,
then q), k d and more. Scores are fewer for all h < k, but B h n m of them are too many to keep. So the queries are cut
into tiles: boxes of their grid. For each, the box of context in scope is cut out, the scores are made, used while they
lie in the cache, and dropped; the backward pass makes them again. A local scope costs what its boxes cost.

A tile's embeddings are not looked up one by one. With its queries in reverse order, the embedding of query n' and context
element m is number n' + m of the table: windows of it, and their gradient the table's by sums along diagonals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F


def read_positions(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """Position lambdas applied: queries (B, h, k, *n), table (k, u, *r), values (B, v, u, *m) to (B, h, v, *n).

    table: one embedding per relative position, key minus query, the middle one for 0. What lies beyond it is not read:
    r = 2 L - 1 reads everything on grids up to L, a smaller r the neighbourhood of each query. r is odd on every axis.
    """
    return ReadPositions.apply(queries, table, values)


def tile_shape(queries: Sequence[int], context: Sequence[int], table: Sequence[int], rows: int, most: int) -> list[int]:
    """Queries of one tile along each axis: halved where longest until its `rows` scores per pair are at most `most`."""
    tile = list(queries)
    while max(tile) > 1:
        seen = prod(min(m, t + r - 1) for m, t, r in zip(context, tile, table, strict=True))
        if rows * prod(tile) * seen <= most:
            break
        longest = tile.index(max(tile))
        tile[longest] = -(-tile[longest] // 2)
    return tile


@dataclass(frozen=True)
class Tile:
    """A box of queries, the box of context that they see, and the box of the padded table with their embeddings."""

    queries: list[slice]
    context: list[slice]
    table: list[slice]


def tiles(queries: Sequence[int], context: Sequence[int], table: Sequence[int], tile: Sequence[int]) -> Iterator[Tile]:
    """All tiles that see any context. The table is taken to be padded by tile - 1 on both sides of each axis."""
    for starts in product(*(range(0, n, t) for n, t in zip(queries, tile, strict=True))):
        boxes: list[tuple[slice, slice, slice]] = []
        for start, n, m, r, t in zip(starts, queries, context, table, tile, strict=True):
            stop, reach = min(start + t, n), r // 2
            first, last = max(0, start - reach), min(m, stop + reach)
            lowest = first - (stop - 1) + reach + t - 1
            boxes.append(
                (slice(start, stop), slice(first, last), slice(lowest, lowest + stop - start + last - first - 1))
            )
        made = Tile(*map(list, zip(*boxes, strict=True)))
        if min(sizes(made.context)) > 0:
            yield made


def sizes(box: list[slice]) -> list[int]:
    return [span.stop - span.start for span in box]


def windows(padded: Tensor, tile: Tile) -> Tensor:
    """The embeddings of a tile's queries, in reverse order, and context: (n, k, u m)."""
    view = padded[(..., *tile.table)]
    for axis, length in enumerate(sizes(tile.context), start=2):
        view = view.unfold(axis, length, 1)  # (k, u, *n, *m) after the last
    axes = len(tile.queries)
    view = view.permute(*range(2, 2 + axes), 0, 1, *range(2 + axes, 2 + 2 * axes))
    return view.reshape(prod(sizes(tile.queries)), len(padded), -1)


def add_windows(total: Tensor, tile: Tile, windowed: Tensor) -> None:
    """Add the gradient of `windows` (n, k, u m) to that of the padded table."""
    k, u = total.shape[:2]
    axes = len(tile.queries)
    rest = windowed.view(*sizes(tile.queries), k, u, *sizes(tile.context))
    for left in range(axes, 0, -1):
        rest = sum_diagonals(rest.movedim((0, left + 2), (-2, -1)))
    total[(..., *tile.table)] += rest


def sum_diagonals(x: Tensor) -> Tensor:
    """(..., n, m) to (..., n + m - 1): the sums of all x[i, j] with equal i + j."""
    n, m = x.shape[-2:]
    sheared = F.pad(x, (0, n)).flatten(-2)[..., : n * (n + m - 1)]  # each row begins one place later than the one above
    return sheared.unflatten(-1, (n, n + m - 1)).sum(dim=-2)


def cut(x: Tensor, box: list[slice]) -> Tensor:
    """(B, ?, ?, *grid) to the elements of a box of the grid, in reverse order: (n, ?, B, ?)."""
    axes = range(3, x.dim())
    return x[(..., *box)].permute(*axes, 1, 0, 2).flip(*range(len(axes))).flatten(0, len(axes) - 1)


class ReadPositions(torch.autograd.Function):
    """See the head of this file."""

    @staticmethod
    def forward(ctx, queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
        batch, heads, key_depth, *grid = queries.shape
        depth, intra, *context = values.shape[1:]
        reach = table.shape[2:]
        # a GPU wants few big products, a CPU's cache holds about 4 MiB
        most = 2**20 if queries.device.type == "cpu" else 2**26
        ctx.tile = tile_shape(grid, context, reach, max(batch * heads, key_depth) * intra, most)
        padded = F.pad(table, [t - 1 for t in reversed(ctx.tile) for _ in range(2)])
        ctx.save_for_backward(queries, padded, values)
        ctx.reach = reach
        read = queries.new_zeros(batch, heads, depth, *grid)
        for tile in tiles(grid, context, reach, ctx.tile):
            asked = cut(queries, tile.queries).flatten(1, 2)  # (n, h B, k)
            scores = torch.bmm(asked, windows(padded, tile))  # (n, h B, u m)
            scores = scores.view(-1, batch, scores.shape[-1])  # (n h, B, u m)
            y = torch.bmm(values[(..., *tile.context)].flatten(2), scores.permute(1, 2, 0))  # (B, v, n h)
            y = y.view(batch, depth, *sizes(tile.queries), heads)
            read[(..., *tile.queries)] = y.flip(*range(2, y.dim() - 1)).movedim(-1, 1)
        return read

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        queries, padded, values = ctx.saved_tensors
        batch, heads, _, *grid = queries.shape
        context = values.shape[3:]
        wide = torch.promote_types(queries.dtype, torch.float32)
        grad_queries = torch.zeros_like(queries)
        grad_padded = torch.zeros_like(padded, dtype=wide)
        grad_values = torch.zeros_like(values, dtype=wide)
        for tile in tiles(grid, context, ctx.reach, ctx.tile):
            asked = cut(queries, tile.queries).flatten(1, 2)  # (n, h B, k)
            embeddings = windows(padded, tile)  # (n, k, u m)
            seen = values[(..., *tile.context)].flatten(2)  # (B, v, u m)
            told = cut(grad, tile.queries).permute(2, 0, 1, 3).flatten(1, 2)  # (B, n h, v)
            scores = torch.bmm(asked, embeddings).view(-1, batch, seen.shape[-1])  # (n h, B, u m)
            of_values = torch.bmm(told.transpose(1, 2), scores.transpose(0, 1))
            grad_values[(..., *tile.context)] += of_values.unflatten(2, (-1, *sizes(tile.context)))
            of_scores = torch.bmm(told, seen).unflatten(1, (-1, heads))  # (B, n, h, u m)
            of_scores = of_scores.permute(1, 2, 0, 3).flatten(1, 2)  # (n, h B, u m)
            of_queries = torch.bmm(of_scores, embeddings.transpose(1, 2)).view(*sizes(tile.queries), heads, batch, -1)
            axes = range(len(grid))
            of_queries = of_queries.flip(*axes).permute(-2, -3, -1, *axes)
            grad_queries[(..., *tile.queries)] = of_queries
            add_windows(grad_padded, tile, torch.bmm(asked.transpose(1, 2), of_scores))
        whole = [slice(t - 1, -(t - 1) or None) for t in ctx.tile]
        return grad_queries, grad_padded[(..., *whole)].to(padded.dtype), grad_values.to(values.dtype)
