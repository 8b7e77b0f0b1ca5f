"""What queries read of values through embeddings of relative positions, by scores first: exact, tile by tile.

Scores first (q E, then V), the sums take h k + d products for each pair of query and context element; lambda first (E V,
then q), k d and more. Scores are fewer for all h < k, but B h n m of them are too many to keep. So the queries are cut
into tiles: boxes of their grid. For each, the box of context in scope is cut out, the scores are made, used while they
lie in the cache, and dropped; the backward pass makes them again. A local scope costs what its boxes cost.

Embeddings are not looked up pair by pair. With table and context in reverse order, that of a tile's query n' and context
element m is number n' + m + (where the tile stands) of the table: the table, once for every n' and moved by n', holds those
of all tiles as boxes, mostly without a copy. The table's gradient is gathered in the same form and summed along diagonals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def read(queries: Tensor, table: Tensor, values: Tensor, tiling: Tiling) -> Tensor:
    """As `position_lambda.read_positions`, on any number of axes."""
    return ReadPositions.apply(queries, table, values, tiling)


def tiling(queries: Tensor, table: Tensor, values: Tensor) -> Tiling:
    """Into what tiles the queries are cut."""
    batch, heads, key_depth, *grid = queries.shape
    _, _, intra, *context = values.shape
    # a GPU wants few big products, a CPU's cache holds about 4 MiB
    most = 2**20 if queries.device.type == "cpu" else 2**26
    reach = table.shape[2:]
    return Tiling(grid, context, reach, tile_shape(grid, context, reach, max(batch * heads, key_depth) * intra, most))


def multiply_adds(queries: Tensor, table: Tensor, values: Tensor, tiling: Tiling) -> int:
    """Of the forward pass."""
    (batch, heads, key_depth), (depth, intra) = queries.shape[:3], values.shape[1:3]
    pairs = [
        sum((s.queries.stop - s.queries.start) * (s.context.stop - s.context.start) for s in axis)
        for axis in tiling.axes
    ]
    return batch * heads * intra * (key_depth + depth) * prod(pairs)


def tile_shape(queries: Sequence[int], context: Sequence[int], table: Sequence[int], rows: int, most: int) -> list[int]:
    """Queries of one tile along each axis: the axis that saves most pairs is halved, the first of equals, until the tile's
    `rows` scores per pair of query and context element are at most `most`."""

    def pairs(tile: Sequence[int]) -> int:
        seen = (min(m, t + r - 1) for m, t, r in zip(context, tile, table, strict=True))
        return prod(tile) * prod(seen)

    tile = list(queries)
    while rows * pairs(tile) > most and max(tile) > 1:
        halved = [[*tile[:axis], -(-t // 2), *tile[axis + 1 :]] for axis, t in enumerate(tile) if t > 1]
        tile = min(halved, key=pairs)
    return tile


class Span(NamedTuple):
    """A tile along one axis: its queries, the context that they see, and where `moved_tables` has their embeddings."""

    queries: slice
    context: slice
    table: slice


def spans(queries: int, context: int, table: int, tile: int) -> list[Span]:
    """All tiles along one axis that see any context. Context and table are in reverse order, and places in the table are
    counted with tile - 1 zeros before it."""
    found = []
    for start in range(0, queries, tile):
        stop, reach = min(start + tile, queries), table // 2
        first, last = max(0, start - reach), min(context, stop + reach)
        place = start - last + reach + tile
        if first < last:
            found.append(
                Span(slice(start, stop), slice(context - last, context - first), slice(place, place + last - first))
            )
    return found


class Tiling:
    """How queries are cut into tiles, and what part of the table they need."""

    def __init__(
        self, queries: Sequence[int], context: Sequence[int], table: Sequence[int], tile: Sequence[int]
    ) -> None:
        self.tile = list(tile)
        self.axes = [spans(*lengths) for lengths in zip(queries, context, table, tile, strict=True)]
        self.lowest = [min((s.table.start for s in axis), default=0) for axis in self.axes]
        self.needed = [
            max((s.table.stop for s in axis), default=0) - low for axis, low in zip(self.axes, self.lowest, strict=True)
        ]
        # what is to be added before and after the table along each axis, or, below 0, cut off; last axis first, for F.pad
        ends = zip(self.lowest, self.needed, table, tile, strict=True)
        self.padding = [side for low, needed, r, t in reversed(list(ends)) for side in (t - 1 - low, low + needed - r)]

    def __iter__(self) -> Iterator[tuple[tuple, tuple, tuple]]:
        """The boxes of each tile: of queries (B, ?, ?, *n), of context, and of `moved_tables`."""
        for place in product(*self.axes):
            moves = (slice(0, span.queries.stop - span.queries.start) for span in place)
            tables = (slice(s.table.start - low, s.table.stop - low) for s, low in zip(place, self.lowest, strict=True))
            yield (
                (..., *(span.queries for span in place)),
                (..., *(span.context for span in place)),
                (*moves, slice(None), slice(None), *tables),
            )


def moved_tables(table: Tensor, tiling: Tiling) -> Tensor:
    """The table (k, u, *r), with zeros beyond its ends, moved by every n' of a tile: (*tile, k, u, *needed)."""
    axes = len(tiling.tile)
    view = F.pad(table, tiling.padding)
    for axis, needed in enumerate(tiling.needed, start=2):
        view = view.unfold(axis, needed, 1)  # (k, u, *tile, *needed) after the last
    return view.permute(*range(2, 2 + axes), 0, 1, *range(2 + axes, 2 + 2 * axes)).contiguous()


def table_gradient(moved: Tensor, tiling: Tiling) -> Tensor:
    """The gradient of `moved_tables` to that of the table."""
    for left in range(len(tiling.tile), 0, -1):
        moved = sum_diagonals(moved.movedim((0, left + 2), (-2, -1)))
    return F.pad(moved, [-side for side in tiling.padding])


def sum_diagonals(x: Tensor) -> Tensor:
    """(..., n, m) to (..., n + m - 1): the sums of all x[i, j] with equal i + j."""
    n, m = x.shape[-2:]
    sheared = F.pad(x, (0, n)).flatten(-2)[..., : n * (n + m - 1)]  # each row begins one place later than the one above
    return sheared.unflatten(-1, (n, n + m - 1)).sum(dim=-2)


def cut(x: Tensor, box: tuple) -> Tensor:
    """(B, ?, ?, *grid) to the elements of a box of the grid: (n, ?, B, ?)."""
    axes = range(3, x.dim())
    # contiguous, since bmm is slow on matrices without a stride of 1
    return x[box].permute(*axes, 1, 0, 2).contiguous().flatten(0, len(axes) - 1)


def reverse(x: Tensor, axes: int) -> Tensor:
    """The last `axes` axes in reverse order."""
    return x.flip(*range(-axes, 0))


class Scratch:
    """Memory that every tile's scores are written to: fresh memory for each costs the kernel more than the product."""

    def __init__(self, like: Tensor) -> None:
        self.memory = like.new_empty(0)

    def bmm(self, a: Tensor, b: Tensor) -> Tensor:
        shape = (len(a), a.shape[1], b.shape[2])
        if self.memory.numel() < prod(shape):
            self.memory = a.new_empty(prod(shape))
        return torch.bmm(a, b, out=self.memory[: prod(shape)].view(shape))


class ReadPositions(torch.autograd.Function):
    """See the head of this file."""

    @staticmethod
    def forward(ctx, queries: Tensor, table: Tensor, values: Tensor, tiling: Tiling) -> Tensor:
        batch, heads, _, *grid = queries.shape
        depth, axes = values.shape[1], len(grid)
        ctx.tiling = tiling
        ctx.save_for_backward(queries, table, values)
        moved, values = moved_tables(reverse(table, axes), ctx.tiling), reverse(values, axes)
        read = queries.new_zeros(batch, heads, depth, *grid)
        scratch = Scratch(queries)
        for of_queries, of_context, of_tables in ctx.tiling:
            asked = cut(queries, of_queries).flatten(1, 2)  # (n, h B, k)
            embeddings = moved[of_tables].flatten(0, axes - 1).flatten(2)  # (n, k, u m)
            scores = scratch.bmm(asked, embeddings)  # (n, h B, u m)
            scores = scores.view(-1, batch, scores.shape[-1])  # (n h, B, u m)
            y = torch.bmm(values[of_context].flatten(2), scores.permute(1, 2, 0))  # (B, v, n h)
            place = read[of_queries]
            place.copy_(y.view(batch, depth, *place.shape[3:], heads).movedim(-1, 1))
        return read

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        queries, table, values = ctx.saved_tensors
        batch, heads, _, *grid = queries.shape
        axes = len(grid)
        moved, values = moved_tables(reverse(table, axes), ctx.tiling), reverse(values, axes)
        wide = torch.promote_types(queries.dtype, torch.float32)
        grad_queries = torch.zeros_like(queries)
        grad_moved = torch.zeros_like(moved, dtype=wide)
        grad_values = torch.zeros_like(values, dtype=wide)
        scratch, grad_scratch = Scratch(queries), Scratch(queries)
        # rows of heads and examples stand in the order in which the next product takes them without a copy
        for of_queries, of_context, of_tables in ctx.tiling:
            asked = cut(queries, of_queries)  # (n, h, B, k)
            told = cut(grad, of_queries)  # (n, h, B, v)
            embeddings = moved[of_tables].flatten(0, axes - 1).flatten(2)  # (n, k, u m)
            seen = values[of_context].flatten(2)  # (B, v, u m)
            scores = scratch.bmm(asked.flatten(1, 2), embeddings).view(-1, batch, seen.shape[-1])  # (n h, B, u m)
            part = grad_values[of_context]
            part += torch.bmm(told.permute(2, 3, 0, 1).flatten(2), scores.transpose(0, 1)).view(part.shape)
            grad_scores = grad_scratch.bmm(told.permute(2, 1, 0, 3).flatten(1, 2), seen)  # (B, h n, u m)
            grad_scores = grad_scores.view(batch * heads, -1, seen.shape[-1]).transpose(0, 1)  # (n, B h, u m)
            place = grad_queries[of_queries]
            asking = torch.bmm(grad_scores, embeddings.transpose(1, 2)).view(*place.shape[3:], batch, heads, -1)
            place.copy_(asking.permute(-3, -2, -1, *range(axes)))
            part = grad_moved[of_tables]
            part += torch.bmm(asked.permute(0, 3, 2, 1).flatten(2), grad_scores).view(part.shape)
        grad_table = reverse(table_gradient(grad_moved, ctx.tiling), axes)
        return grad_queries, grad_table.to(table.dtype), reverse(grad_values, axes).to(values.dtype), None
