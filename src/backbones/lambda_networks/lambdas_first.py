"""Exact position lambdas on 2-D grids, computed as (E V) first, then q, column by column.

The position lambdas E V are a correlation along both axes. Along the columns (y) a Fourier transform over blocks of rows
turns it into one product per frequency f and block j; along the rows (x) it stays a sum over the columns in scope:

    lambda^[j, f, k, x] = sum over dx of  E^[f, k, dx] V^[j, f, x + dx]

For blocks of m rows there are F = (m + r - 1) / 2 complex frequencies, so a pixel takes about 4 r F / m + 2 F multiply-adds
for each of the k v lambdas in place of r^2. Small blocks suit a small scope; one block holds all rows at the border of a
global one. The transforms are short, so they are matrix products: on a CPU these are many times faster per operation than
an FFT. The lambdas of one column are computed at a time, applied while they are in the cache, and discarded; the backward
pass recomputes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_LAMBDAS = 2**21  # values of a column at a time: 8 MiB in float32


class Axis(NamedTuple):
    """Lengths of the query grid, the context grid and the table along one axis."""

    queries: int
    context: int
    table: int

    @property
    def reach(self) -> tuple[int, int]:
        """How far before and after a query there are context elements with an embedding."""
        return min(self.table // 2, self.queries - 1), min(self.table // 2, self.context - 1)

    def in_scope(self, query: int) -> tuple[int, int]:
        """The context elements in scope of a query: first, and last + 1."""
        return max(0, query - self.table // 2), min(self.context, query + self.table // 2 + 1)


def frequencies(rows: Axis, block: int) -> int:
    """Half the length, in complex numbers, of the shortest even transform that does not wrap around."""
    before, after = rows.reach
    if block >= rows.queries:  # nothing lies beyond the grids
        return (max(rows.queries + after, rows.context + before) + 1) // 2
    return (block + before + after + 1) // 2


def multiply_adds(queries: Sequence[int], table: Sequence[int], values: Sequence[int], block: int) -> int:
    """Multiply-adds of the forward pass, from the shapes of its arguments."""
    rows, columns = axes_of(queries, table, values)
    (batch, _, _, heads, key_depth), (depth, intra) = queries, values[3:]
    parts = 2 * frequencies(rows, block)  # real and imaginary
    blocks = -(-rows.queries // block)
    lambdas = batch * key_depth * depth
    pairs = sum(max(0, last - first) for first, last in map(columns.in_scope, range(columns.queries)))
    transforms = batch * depth * intra * columns.context * blocks * parts * rows.context
    transforms += key_depth * intra * columns.table * parts * 2 * rows.table
    products = 2 * lambdas * intra * pairs * blocks * parts
    inverse = lambdas * columns.queries * blocks * block * parts
    return transforms + products + inverse + lambdas * heads * rows.queries * columns.queries


def axes_of(queries: Sequence[int], table: Sequence[int], values: Sequence[int]) -> list[Axis]:
    """Rows and columns, from shapes."""
    return [Axis(queries[i], values[i], table[i + 1]) for i in (1, 2)]


class Transform(NamedTuple):
    """Matrices for a correlation along one axis. o and i are the real and the imaginary part of a frequency f."""

    table: Tensor  # (f, o, i, r)
    context: Tensor  # (blocks, f, i, context)
    output: Tensor  # (block, f o)


@lru_cache(64)
def make_transform(axis: Axis, block: int, dtype: torch.dtype, device: torch.device) -> Transform:
    count = frequencies(axis, block)

    def basis(indices: Tensor) -> Tensor:
        """Cosine and sine of every frequency at the given indices: (f, 2, *indices). Frequency 0 has no sine; its place
        takes the cosine of the highest frequency, which has none either."""
        steps = torch.arange(count).view(-1, *[1] * indices.dim())
        turns = steps * indices % (2 * count)
        angles = turns.double() * (math.pi / count)
        waves = torch.stack([angles.cos(), angles.sin()], dim=1)
        waves[0, 1] = 1 - 2 * (indices % 2)
        return waves

    offsets = torch.arange(axis.table) - axis.table // 2
    cos, sin = basis(offsets).unbind(1)
    rotations = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    rotations[0] = torch.diag_embed(basis(offsets)[0].T).permute(1, 2, 0)
    before, after = axis.reach
    rotations *= (offsets >= -before) & (offsets <= after)  # the others have no pair, but would wrap around
    starts = torch.arange(0, axis.queries, block)[:, None]
    places = torch.arange(axis.context) - starts
    near = (places >= -before) & (places < block + after)
    context = (basis(places) * near).movedim(2, 0)
    output = basis(torch.arange(block)) / count
    output[0] /= 2  # every other frequency also stands for its negative
    output = output.flatten(0, 1).T.contiguous()
    return Transform(*(x.to(device, dtype) for x in (rotations, context, output)))


class Columns:
    """The transformed table and context, by columns.

    Args:
        block: rows of a block.
        queries: (b, Y, X, h, k).
        table: (k, u, ry, rx).
        values: (b, Y', X', v, u).
    """

    def __init__(self, block: int, queries: Tensor, table: Tensor, values: Tensor) -> None:
        self.rows, self.columns = axes_of(queries.shape, table.shape, values.shape)
        self.transform = make_transform(self.rows, block, values.dtype, values.device)
        self.blocks, self.frequencies = self.transform.context.shape[:2]
        self.shape = (len(table), len(values), values.shape[3])  # k, b, v of a lambda
        self.intra = table.shape[1]
        table_hat = torch.einsum("foid,kudx->fokxiu", self.transform.table, table)
        self.table_hat = table_hat.flatten(3).flatten(1, 2).repeat(self.blocks, 1, 1)  # (j f, o k, dx i u)
        by_rows = values.permute(1, 2, 4, 0, 3).flatten(1)
        values_hat = self.transform.context.flatten(0, 2) @ by_rows
        values_hat = values_hat.view(self.blocks * self.frequencies, 2, self.columns.context, self.intra, -1)
        self.values_hat = values_hat.transpose(1, 2).contiguous()  # (j f, X', i, u, b v)

    def __iter__(self) -> Iterator[tuple[int, slice, slice]]:
        """Yields every column of queries with the columns of context in scope and the part of the table for them."""
        for x in range(self.columns.queries):
            first, last = self.columns.in_scope(x)
            if first < last:
                start, inputs = first - x + self.columns.table // 2, 2 * self.intra
                yield x, slice(first, last), slice(start * inputs, (start + last - first) * inputs)

    def context(self, columns: slice) -> Tensor:
        """The context of a column: (j f, x' i u, b v)."""
        return self.values_hat[:, columns].flatten(1, 3)

    def lambdas(self, columns: slice, part: slice) -> Tensor:
        """The lambdas of a column: (b Y, k, v)."""
        hat = torch.bmm(self.table_hat[..., part], self.context(columns)).view(self.blocks, 2 * self.frequencies, -1)
        lambdas = torch.matmul(self.transform.output, hat).view(-1, *self.shape)[: self.rows.queries]
        return lambdas.permute(2, 0, 1, 3).reshape(-1, self.shape[0], self.shape[2])

    def transpose_lambdas(self, lambdas: Tensor) -> Tensor:
        """The transpose of `lambdas` up to its first product: (b Y, k, v) to (j f, o k, b v)."""
        key_depth, batch, depth = self.shape
        by_rows = lambdas.view(batch, -1, key_depth, depth).permute(1, 2, 0, 3)
        missing = self.blocks * len(self.transform.output) - self.rows.queries
        by_rows = F.pad(by_rows, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else by_rows
        hat = torch.matmul(self.transform.output.T, by_rows.reshape(self.blocks, len(self.transform.output), -1))
        return hat.view(self.blocks * self.frequencies, 2 * key_depth, batch * depth)

    def table_gradient(self, grad_hat: Tensor) -> Tensor:
        """The gradient of the table from that of `table_hat`."""
        grad_hat = grad_hat.unflatten(0, (self.blocks, -1)).sum(dim=0)
        grad_hat = grad_hat.view(self.frequencies, 2, self.shape[0], -1, 2, self.intra)
        return torch.einsum("foid,fokxiu->kudx", self.transform.table, grad_hat)

    def values_gradient(self, grad_hat: Tensor) -> Tensor:
        """The gradient of the values from that of `values_hat`."""
        by_rows = self.transform.context.flatten(0, 2).T @ grad_hat.transpose(1, 2).reshape(
            self.transform.context.shape[:3].numel(), -1
        )
        return by_rows.view(len(by_rows), -1, self.intra, *self.shape[1:]).permute(3, 0, 1, 4, 2)


def by_column(x: Tensor) -> tuple[Tensor, ...]:
    """(b, Y, X, ?, ?) to X views (b Y, ?, ?)."""
    return x.flatten(0, 1).unbind(1)


def forward(block: int, queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """The position lambdas, applied to the queries. All arguments have one dtype, float32 at least.

    Args:
        block: rows of a block.
        queries: (B, Y, X, h, k).
        table: (k, u, ry, rx).
        values: (B, Y', X', v, u).

    Returns:
        (B, Y, X, h, v).
    """
    output = queries.new_zeros(*queries.shape[:4], values.shape[3])
    for part in parts_of_batch(block, queries, table, values):
        columns = Columns(block, queries[part], table, values[part])
        qs, outputs = by_column(queries[part]), by_column(output[part])
        for x, in_context, in_table in columns:
            outputs[x].copy_(torch.bmm(qs[x], columns.lambdas(in_context, in_table)))
    return output


def backward(block: int, grad: Tensor, queries: Tensor, table: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, table and values from that of the output of `forward`."""
    grad_queries, grad_table, grad_values = map(torch.zeros_like, (queries, table, values))
    for part in parts_of_batch(block, queries, table, values):
        columns = Columns(block, queries[part], table, values[part])
        grad_table_hat, grad_values_hat = map(torch.zeros_like, (columns.table_hat, columns.values_hat))
        qs, grad_qs, grad_ys = by_column(queries[part]), by_column(grad_queries[part]), by_column(grad[part])
        for x, in_context, in_table in columns:
            lambdas = columns.lambdas(in_context, in_table)
            grad_qs[x].copy_(torch.bmm(grad_ys[x], lambdas.transpose(1, 2)))
            grad_hat = columns.transpose_lambdas(torch.bmm(qs[x].transpose(1, 2), grad_ys[x]))
            box = grad_values_hat[:, in_context]
            box += torch.bmm(columns.table_hat[..., in_table].transpose(1, 2), grad_hat).view(box.shape)
            box = grad_table_hat[..., in_table]
            box += torch.bmm(grad_hat, columns.context(in_context).transpose(1, 2))
        grad_table += columns.table_gradient(grad_table_hat)
        grad_values[part] = columns.values_gradient(grad_values_hat)
    return grad_queries, grad_table, grad_values


def parts_of_batch(block: int, queries: Tensor, table: Tensor, values: Tensor) -> list[slice]:
    """As many examples at a time as have MAX_LAMBDAS transformed lambdas in a column."""
    rows, batch = axes_of(queries.shape, table.shape, values.shape)[0], len(values)
    of_example = -(-rows.queries // block) * 2 * frequencies(rows, block) * len(table) * values.shape[3]
    size = max(1, MAX_LAMBDAS // of_example)
    return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]
