"""What queries read of values through embeddings of relative positions, by lambdas first: exact, through frequencies.

The position lambdas of a picture, E V, are a correlation of two pictures. Along the columns a Fourier transform turns it into
products, one for each frequency f; along the rows it stays a product with a matrix that has E's entries on its diagonals:

    lambda^[f, x, k, v] = sum over u, x' of  E^[f, k, u, x' - x] V^[f, x', u, v]

k v F W W' complex multiply-adds for F frequencies, about as many as there are rows, where the sum itself takes k v (H W)^2.
The transforms are matrix products too: they are short, and a CPU's matrix product is many times faster for an operation
than its FFT.
Lambdas are made for some keys at a time, read by the queries and dropped; the backward pass makes them again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MOST = 2**22  # lambdas kept at a time: 16 MiB in float32


def reach(grid: int, context: int, table: int) -> tuple[int, int]:
    """How far before and after a query there is context and an embedding for it, along one axis."""
    return min(table // 2, grid - 1), min(table // 2, context - 1)


def period(grid: int, context: int, table: int) -> int:
    """The shortest odd transform after which no query reads around the end."""
    before, after = reach(grid, context, table)
    return max(grid + after, context + before) | 1


def multiply_adds(queries: Tensor, table: Tensor, values: Tensor) -> int:
    """Of the forward pass."""
    (batch, _, key_depth, height, width), (_, depth, intra, rows, columns) = queries.shape, values.shape
    frequencies = (period(height, rows, table.shape[2]) + 1) // 2
    lambdas = batch * key_depth * depth * width * frequencies
    return lambdas * (4 * intra * columns + 2 * height)


def waves(length: int, places: range, like: Tensor) -> Tensor:
    """cos and sin of every frequency of an odd length at some places: (frequencies, 2, places)."""
    turns = torch.outer(torch.arange((length + 1) // 2), torch.tensor(places)) % length
    angles = turns.to(like.device, torch.float64) * (2 * math.pi / length)
    return torch.stack([angles.cos(), angles.sin()], dim=1).to(like.dtype)


def read(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """As `position_lambda.read_positions`, for queries and context on two axes."""
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        return _read(queries.to(dtype), table.to(dtype), values.to(dtype)).to(queries.dtype)


def _read(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    (batch, heads, _, height, width), (_, depth, intra, rows, columns) = queries.shape, values.shape
    middle, (before, after) = table.shape[2] // 2, reach(height, rows, table.shape[2])
    length = period(height, rows, table.shape[2])
    # V^: the real parts of all u and x', then the imaginary ones
    there = waves(length, range(rows), values) * values.new_tensor([[1.0], [-1.0]])
    seen = there.flatten(0, 1) @ values.flip(4).permute(3, 2, 4, 0, 1).flatten(1)
    seen = seen.view(-1, 2 * intra * columns, batch * depth)
    # E^ times a complex number is this matrix times its two parts: (k, f, 2, 2, u, x' - x)
    around = waves(length, range(-before, after + 1), table)
    real, imaginary = torch.einsum("frd,kudx->rkfux", around, table[:, :, middle - before : middle + after + 1].flip(3))
    turned = torch.stack([torch.stack([real, -imaginary], 2), torch.stack([imaginary, real], 2)], 2)
    # x and x' count from opposite ends: the embedding of a pair is number x + x'
    ends = columns - 1 - table.shape[3] // 2, width - 1 - table.shape[3] // 2
    turned = F.pad(turned, ends)
    back = waves(length, range(height), values)
    back = torch.stack([back[:, 0], -back[:, 1]], dim=1) * (2 / length)
    back[0] /= 2  # every other frequency stands for two
    back = back.flatten(0, 1).T

    def read_keys(asked: Tensor, turned: Tensor, seen: Tensor) -> Tensor:
        """What some keys of the queries (y x B, h, keys) add to the output (y x B, h, v)."""
        lambdas = []
        for matrix in turned.unfold(-1, columns, 1).unbind(0):  # (f, 2, 2, u, x, x')
            matrix = matrix.permute(0, 1, 4, 2, 3, 5).reshape(len(seen), 2 * width, -1)
            found = torch.bmm(matrix, seen).view(len(seen) * 2, -1)
            lambdas.append((back @ found).view(-1, depth))
        return torch.bmm(asked, torch.stack(lambdas, dim=1))

    asked = queries.permute(3, 4, 0, 1, 2).flatten(0, 2)
    keys = max(1, MOST // (len(asked) * depth))
    y = values.new_zeros(len(asked), heads, depth)
    for some, its in zip(asked.split(keys, dim=2), turned.split(keys), strict=True):
        y += checkpoint(read_keys, some, its, seen, use_reentrant=False, preserve_rng_state=False)  # type: ignore
    return y.view(height, width, batch, heads, depth).permute(2, 3, 4, 0, 1)
