"""Where elements stood before they were permuted, read off their positions, which moved with them (Perceiver, table 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules import ByteArray


def places_of(array: ByteArray) -> Tensor | None:
    """For every element the number of the grid's cell that it stands for, (M,), or (B, M) where examples differ; None
    where nothing was moved, there is no grid, or positions do not begin with coordinates (see datamodules.positions)."""
    grid = array.grid
    if grid is None or array.positions.shape[-1] < len(grid):
        return None
    lengths = torch.tensor(grid, device=array.positions.device)
    cells = ((array.positions[..., : len(grid)].double() + 1) / 2 * (lengths - 1)).round().long()
    if ((cells < 0) | (cells >= lengths)).any():
        return None
    strides = lengths.flip(0).cumprod(0).roll(1)
    strides[0] = 1
    places = (cells * strides.flip(0)).sum(dim=-1)
    in_order = torch.arange(places.shape[-1], device=places.device)
    complete = (places.sort(dim=-1).values == in_order).all()
    return places if complete and (places != in_order).any() else None


def put_back(weights: Tensor, places: Tensor | None) -> Tensor:
    """What was found for every element, (B, ..., M), in the order of the grid."""
    if places is None:
        return weights
    index = places if places.dim() == 1 else places.reshape(len(places), *[1] * (weights.dim() - 2), -1)
    return torch.empty_like(weights).scatter_(-1, index.expand_as(weights), weights)


def restored(array: ByteArray) -> ByteArray:
    """A byte array with its elements in the order of the grid."""
    places = places_of(array)
    return array if places is None else array.permute(places.argsort(dim=-1))
