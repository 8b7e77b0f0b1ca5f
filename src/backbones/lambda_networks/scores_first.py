"""Exact position lambdas on any number of axes, computed as (q E) first, then V, tile by tile.

(q E) V takes h k + d products per pair of query and context element; q (E V) takes k d or more. Scores are cheaper for
all h < k, but B h n m of them do not fit in memory. So the queries are split into tiles, boxes of their grid. For each
tile, the scores with the box of context in scope are computed, used while they are in the cache, and discarded; the
backward pass recomputes them. A local scope costs only its boxes.

Embeddings are not looked up pair by pair. With table and context in reverse order, the embedding of query n' of a tile
and context element m has the index n' + m + (offset of the tile). One shifted copy of the table per n' therefore holds
the embeddings of every tile as a box, mostly as a view. The gradient of the table is accumulated in the same layout and
summed along diagonals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def make_tiling(queries: Sequence[int], table: Sequence[int], values: Sequence[int], device: str) -> Tiling:
    """Chooses tiles for arguments of these shapes on this type of device."""
    batch, *grid, heads, key_depth = queries
    _, *context, _, intra = values
    # a GPU is fastest on few big products; a CPU keeps 2 MiB in its cache
    max_scores = 2**19 if device == "cpu" else 2**26
    rows = max(batch * heads, key_depth) * intra
    return Tiling(grid, context, table[2:], tile_shape(grid, context, table[2:], rows, max_scores))


def multiply_adds(queries: Sequence[int], values: Sequence[int], tiling: Tiling) -> int:
    """Multiply-adds of the forward pass, from the shapes of its arguments."""
    (batch, *_, heads, key_depth), (depth, intra) = queries, values[-2:]
    pairs = [
        sum((t.queries.stop - t.queries.start) * (t.context.stop - t.context.start) for t in tiles)
        for tiles in tiling.axes
    ]
    return batch * heads * intra * (key_depth + depth) * prod(pairs)


def tile_shape(
    queries: Sequence[int], context: Sequence[int], table: Sequence[int], rows: int, max_scores: int
) -> list[int]:
    """Queries per tile along each axis. Starting from one tile, the axis that saves most pairs is halved (the first on a
    tie), until a tile has at most `max_scores` scores, `rows` for each pair of query and context element."""

    def pairs(tile: Sequence[int]) -> int:
        in_scope = (min(m, t + r - 1) for m, t, r in zip(context, tile, table, strict=True))
        return prod(tile) * prod(in_scope)

    tile = list(queries)
    while rows * pairs(tile) > max_scores and max(tile) > 1:
        candidates = [[*tile[:axis], -(-t // 2), *tile[axis + 1 :]] for axis, t in enumerate(tile) if t > 1]
        tile = min(candidates, key=pairs)
    return tile


class AxisTile(NamedTuple):
    """A tile along one axis: its queries, the context in their scope, and their embeddings in `shifted_tables`."""

    queries: slice
    context: slice
    table: slice


def tiles_along_axis(queries: int, context: int, table: int, tile: int) -> list[AxisTile]:
    """All tiles along one axis with any context in scope. Context and table are in reverse order; indices into the table
    count the tile - 1 zeros in front of it."""
    tiles = []
    for start in range(0, queries, tile):
        stop, reach = min(start + tile, queries), table // 2
        first, last = max(0, start - reach), min(context, stop + reach)
        offset = start - last + reach + tile
        if first < last:
            in_context, in_table = slice(context - last, context - first), slice(offset, offset + last - first)
            tiles.append(AxisTile(slice(start, stop), in_context, in_table))
    return tiles


class Tiling:
    """How the queries are split into tiles, and which part of the table the tiles need.

    Args:
        queries: grid of the queries.
        context: grid of the context.
        table: extent of the table along each axis.
        tile: queries per tile along each axis.
    """

    def __init__(
        self, queries: Sequence[int], context: Sequence[int], table: Sequence[int], tile: Sequence[int]
    ) -> None:
        self.tile = list(tile)
        self.axes = [tiles_along_axis(*lengths) for lengths in zip(queries, context, table, tile, strict=True)]
        self.starts = [min((t.table.start for t in tiles), default=0) for tiles in self.axes]
        self.lengths = [
            max((t.table.stop for t in tiles), default=0) - start
            for tiles, start in zip(self.axes, self.starts, strict=True)
        ]
        # padding before and after the table along each axis, negative to crop; last axis first, as F.pad takes it
        ends = zip(self.starts, self.lengths, table, tile, strict=True)
        self.padding = [
            side for start, length, r, t in reversed(list(ends)) for side in (t - 1 - start, start + length - r)
        ]

    def __iter__(self) -> Iterator[tuple[tuple, tuple, tuple]]:
        """Yields the boxes of each tile: in queries (B, *n, ...), in context (B, u, *m, v), and in `shifted_tables`."""
        for tiles in product(*self.axes):
            shifts = (slice(0, t.queries.stop - t.queries.start) for t in tiles)
            tables = (slice(t.table.start - s, t.table.stop - s) for t, s in zip(tiles, self.starts, strict=True))
            yield (
                (slice(None), *(t.queries for t in tiles)),
                (slice(None), slice(None), *(t.context for t in tiles)),
                (*shifts, slice(None), slice(None), *tables),
            )


def shifted_tables(table: Tensor, tiling: Tiling) -> Tensor:
    """The zero-padded table (k, u, *r), shifted by every n' of a tile: (*tile, k, u, *lengths)."""
    axes = len(tiling.tile)
    view = F.pad(table, tiling.padding)
    for axis, length in enumerate(tiling.lengths, start=2):
        view = view.unfold(axis, length, 1)  # (k, u, *tile, *lengths) after the last
    return view.permute(*range(2, 2 + axes), 0, 1, *range(2 + axes, 2 + 2 * axes)).contiguous()


def table_gradient(grad_shifted: Tensor, tiling: Tiling) -> Tensor:
    """The gradient of the table from that of `shifted_tables`."""
    for axes_left in range(len(tiling.tile), 0, -1):
        grad_shifted = sum_diagonals(grad_shifted.movedim((0, axes_left + 2), (-2, -1)))
    return F.pad(grad_shifted, [-side for side in tiling.padding])


def sum_diagonals(x: Tensor) -> Tensor:
    """(..., n, m) to (..., n + m - 1): the sums of all x[i, j] with equal i + j."""
    n, m = x.shape[-2:]
    sheared = F.pad(x, (0, n)).flatten(-2)[..., : n * (n + m - 1)]  # each row starts one place after the previous one
    return sheared.unflatten(-1, (n, n + m - 1)).sum(dim=-2)


def queries_of_box(x: Tensor, box: tuple, order: str) -> Tensor:
    """(B, *n, h, ?) to the elements in a box, contiguous, with the axes B, n, h in the given order: (?, ?, ?, ?)."""
    box_of_x = x[box].flatten(1, -3)
    # bmm is slow on matrices without a stride of 1
    return box_of_x.permute(*("bnh".index(axis) for axis in order), 3).contiguous()


def reverse_context(values: Tensor) -> Tensor:
    """(B, *m, v, u) to (B, u, *m, v), reversed along *m."""
    return values.movedim(-1, 1).flip(*range(2, values.dim() - 1))


def reverse(x: Tensor, axes: int) -> Tensor:
    """Flips the last `axes` axes."""
    return x.flip(*range(-axes, 0))


class ScratchBuffer:
    """Memory reused for the scores of every tile: allocating it afresh takes longer than the product."""

    def __init__(self, like: Tensor) -> None:
        self.memory = like.new_empty(0)

    def bmm(self, a: Tensor, b: Tensor) -> Tensor:
        shape = (len(a), a.shape[1], b.shape[2])
        if self.memory.numel() < prod(shape):
            self.memory = a.new_empty(prod(shape))
        return torch.bmm(a, b, out=self.memory[: prod(shape)].view(shape))


def forward(tiling: Tiling, queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """The position lambdas, applied to the queries.

    Args:
        tiling: how the queries are split.
        queries: (B, *n, h, k).
        table: (k, u, *r).
        values: (B, *m, v, u).

    Returns:
        (B, *n, h, v).
    """
    batch, *grid, heads, _ = queries.shape
    depth, axes = values.shape[-2], len(grid)
    tables, values = shifted_tables(reverse(table, axes), tiling), reverse_context(values)
    output = queries.new_zeros(batch, *grid, heads, depth)
    scratch = ScratchBuffer(queries)
    for in_queries, in_context, in_tables in tiling:
        q = queries_of_box(queries, in_queries, "nhb").flatten(1, 2)  # (n, h B, k)
        embeddings = tables[in_tables].flatten(0, axes - 1).flatten(2)  # (n, k, u m)
        scores = scratch.bmm(q, embeddings)  # (n, h B, u m)
        scores = scores.view(-1, batch, scores.shape[-1])  # (n h, B, u m)
        context = values[in_context].flatten(1, -2)  # (B, u m, v)
        box = output[in_queries]
        box.copy_(torch.bmm(scores.transpose(0, 1), context).view(box.shape))
    return output


def backward(
    tiling: Tiling, grad: Tensor, queries: Tensor, table: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, table and values from that of the output of `forward`."""
    batch, *grid, heads, _ = queries.shape
    axes = len(grid)
    tables, values = shifted_tables(reverse(table, axes), tiling), reverse_context(values)
    wide = torch.promote_types(queries.dtype, torch.float32)
    grad_queries = torch.zeros_like(queries)
    grad_tables = torch.zeros_like(tables, dtype=wide)
    grad_values = torch.zeros_like(values, dtype=wide)
    scratch, grad_scratch = ScratchBuffer(queries), ScratchBuffer(queries)
    # heads and examples are ordered so that the next product needs no copy
    for in_queries, in_context, in_tables in tiling:
        embeddings = tables[in_tables].flatten(0, axes - 1).flatten(2)  # (n, k, u m)
        context = values[in_context].flatten(1, -2)  # (B, u m, v)
        scores = scratch.bmm(queries_of_box(queries, in_queries, "nhb").flatten(1, 2), embeddings)  # (n, h B, u m)
        scores = scores.view(-1, batch, scores.shape[-1])  # (n h, B, u m)
        box = grad_values[in_context]
        box += torch.bmm(scores.permute(1, 2, 0), queries_of_box(grad, in_queries, "bnh").flatten(1, 2)).view(box.shape)
        grad_y = queries_of_box(grad, in_queries, "bhn").flatten(1, 2)  # (B, h n, v)
        grad_scores = grad_scratch.bmm(grad_y, context.transpose(1, 2))  # (B, h n, u m)
        grad_scores = grad_scores.view(batch * heads, -1, context.shape[1]).transpose(0, 1)  # (n, B h, u m)
        box = grad_queries[in_queries]
        grad_q = torch.bmm(grad_scores, embeddings.transpose(1, 2)).view(*box.shape[1:-2], batch, heads, -1)
        box.copy_(grad_q.movedim(-3, 0))
        box = grad_tables[in_tables]
        q = queries_of_box(queries, in_queries, "nbh").flatten(1, 2)  # (n, B h, k)
        box += torch.bmm(q.transpose(1, 2), grad_scores).view(box.shape)
    grad_table = reverse(table_gradient(grad_tables, tiling), axes)
    grad_values = grad_values.flip(*range(2, grad_values.dim() - 1)).movedim(1, -1)
    return grad_queries, grad_table.to(table.dtype), grad_values.to(values.dtype)
