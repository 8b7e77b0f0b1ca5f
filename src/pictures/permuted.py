"""Undo a permutation of elements, using their positional features, which were permuted with them (Perceiver, table 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules import ByteArray


def original_indices(array: ByteArray) -> Tensor | None:
    """The index in the grid that each element had before it was permuted.

    Returns:
        (M,), or (B, M) if examples have different permutations. None if the elements are in order, have no grid, or their
        positional features do not start with coordinates (see datamodules.core.positions).
    """
    grid = array.grid
    if grid is None or array.positions.shape[-1] < len(grid):
        return None
    lengths = torch.tensor(grid, device=array.positions.device)
    cells = ((array.positions[..., : len(grid)].double() + 1) / 2 * (lengths - 1)).round().long()
    if ((cells < 0) | (cells >= lengths)).any():
        return None
    strides = lengths.flip(0).cumprod(0).roll(1)
    strides[0] = 1
    indices = (cells * strides.flip(0)).sum(dim=-1)
    in_order = torch.arange(indices.shape[-1], device=indices.device)
    is_permutation = (indices.sort(dim=-1).values == in_order).all()
    return indices if is_permutation and (indices != in_order).any() else None


def unpermute(weights: Tensor, indices: Tensor | None) -> Tensor:
    """Sorts a value for each element, (B, ..., M), into the order of the grid."""
    if indices is None:
        return weights
    index = indices if indices.dim() == 1 else indices.reshape(len(indices), *[1] * (weights.dim() - 2), -1)
    return torch.empty_like(weights).scatter_(-1, index.expand_as(weights), weights)


def unpermute_array(array: ByteArray) -> ByteArray:
    """Returns the byte array with its elements in the order of the grid."""
    indices = original_indices(array)
    return array if indices is None else array.permute(indices.argsort(dim=-1))
