"""Exact position lambdas on 2-D grids, computed as (E V) first, then q, with a Fourier transform over the rows.

The position lambdas E V are a 2-D correlation. A Fourier transform along the columns turns it into one product per
frequency f; along the rows it stays a product with a Toeplitz matrix of E's entries:

    lambda^[f, x, k, v] = sum over u, x' of  E^[f, k, u, x' - x] V^[f, x', u, v]

This takes k v F W W' complex multiply-adds for F frequencies, about as many as there are rows, instead of k v (H W)^2.
The transforms are short, so they are matrix products: on a CPU these are many times faster per operation than an FFT.
Lambdas are computed for a few keys at a time, applied and discarded; the backward pass recomputes them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MAX_LAMBDAS = 2**22  # values kept at a time: 16 MiB in float32


def reach(grid: int, context: int, table: int) -> tuple[int, int]:
    """How far before and after a query, along one axis, there are context elements with an embedding."""
    return min(table // 2, grid - 1), min(table // 2, context - 1)


def transform_length(grid: int, context: int, table: int) -> int:
    """The shortest odd transform whose circular correlation does not wrap around."""
    before, after = reach(grid, context, table)
    return max(grid + after, context + before) | 1


def multiply_adds(queries: Tensor, table: Tensor, values: Tensor) -> int:
    """Multiply-adds of the forward pass."""
    (batch, _, key_depth, height, width), (_, depth, intra, rows, columns) = queries.shape, values.shape
    frequencies = (transform_length(height, rows, table.shape[2]) + 1) // 2
    lambdas = batch * key_depth * depth * width * frequencies
    return lambdas * (4 * intra * columns + 2 * height)


def fourier_basis(length: int, indices: range, like: Tensor) -> Tensor:
    """Cosine and sine of every frequency of an odd length at the given indices: (frequencies, 2, indices)."""
    turns = torch.outer(torch.arange((length + 1) // 2), torch.tensor(indices)) % length
    angles = turns.to(like.device, torch.float64) * (2 * math.pi / length)
    return torch.stack([angles.cos(), angles.sin()], dim=1).to(like.dtype)


def apply_lambdas_first(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """Same as `position_lambda.apply_position_lambdas`, for queries and context on 2-D grids. At least float32."""
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        return _apply(queries.to(dtype), table.to(dtype), values.to(dtype)).to(queries.dtype)


def _apply(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    (batch, heads, _, height, width), (_, depth, intra, rows, columns) = queries.shape, values.shape
    middle, (before, after) = table.shape[2] // 2, reach(height, rows, table.shape[2])
    length = transform_length(height, rows, table.shape[2])
    # V^: the real parts of all u and x', then the imaginary parts
    transform = fourier_basis(length, range(rows), values) * values.new_tensor([[1.0], [-1.0]])
    values_hat = transform.flatten(0, 1) @ values.flip(4).permute(3, 2, 4, 0, 1).flatten(1)
    values_hat = values_hat.view(-1, 2 * intra * columns, batch * depth)
    # E^ as the real 2 x 2 matrices that multiply (real, imaginary) pairs: (k, f, 2, 2, u, x' - x)
    transform = fourier_basis(length, range(-before, after + 1), table)
    table = table[:, :, middle - before : middle + after + 1].flip(3)
    real, imaginary = torch.einsum("frd,kudx->rkfux", transform, table)
    table_hat = torch.stack([torch.stack([real, -imaginary], 2), torch.stack([imaginary, real], 2)], 2)
    # x and x' count from opposite ends, so the embedding of a pair has the index x + x'
    table_hat = F.pad(table_hat, (columns - 1 - table.shape[3] // 2, width - 1 - table.shape[3] // 2))
    inverse = fourier_basis(length, range(height), values)
    inverse = torch.stack([inverse[:, 0], -inverse[:, 1]], dim=1) * (2 / length)
    inverse[0] /= 2  # every frequency but 0 also stands for its negative
    inverse = inverse.flatten(0, 1).T

    def apply_keys(queries: Tensor, table_hat: Tensor, values_hat: Tensor) -> Tensor:
        """The share of some keys of the queries (y x B, h, keys) in the output (y x B, h, v)."""
        lambdas = []
        for toeplitz in table_hat.unfold(-1, columns, 1).unbind(0):  # (f, 2, 2, u, x, x')
            toeplitz = toeplitz.permute(0, 1, 4, 2, 3, 5).reshape(len(values_hat), 2 * width, -1)
            lambdas_hat = torch.bmm(toeplitz, values_hat).view(len(values_hat) * 2, -1)
            lambdas.append((inverse @ lambdas_hat).view(-1, depth))
        return torch.bmm(queries, torch.stack(lambdas, dim=1))

    queries = queries.permute(3, 4, 0, 1, 2).flatten(0, 2)
    keys = max(1, MAX_LAMBDAS // (len(queries) * depth))
    y = values.new_zeros(len(queries), heads, depth)
    for chunk in zip(queries.split(keys, dim=2), table_hat.split(keys), strict=True):
        y += checkpoint(apply_keys, *chunk, values_hat, use_reentrant=False, preserve_rng_state=False)  # type: ignore
    return y.view(height, width, batch, heads, depth).permute(2, 3, 4, 0, 1)
