"""Positions of elements: coordinates in [-1, 1] and their Fourier features (Perceiver, section 3.2 and appendix D)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_range


def grid_coordinates(grid: Sequence[int]) -> Tensor:
    """Coordinates of all cells of a grid in row-major order: (M, len(grid)) float64, each axis from -1 to 1 inclusive."""
    axes = [torch.linspace(-1, 1, length, dtype=torch.float64) for length in grid]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], dim=-1)


def fourier_features(coordinates: Tensor, bands: int, max_frequency: Sequence[float] | float) -> Tensor:
    """Maps coordinates (..., d) to features (..., d * (2 * bands + 1)).

    Each axis has `bands` frequencies f, evenly spaced from 1 to max_frequency / 2. If max_frequency is the number of
    samples along the axis, the highest is the Nyquist frequency. The channels are the coordinates, then sin(f pi x) axis
    by axis, then cos(f pi x) axis by axis, as in the code released with the paper.
    """
    d = coordinates.shape[-1]
    rates = [max_frequency] * d if isinstance(max_frequency, int | float) else list(max_frequency)
    if len(rates) != d:
        raise ValueError(f"max_frequency has {len(rates)} entries for {d} axes")
    frequencies = torch.stack([torch.linspace(1, rate / 2, bands, dtype=torch.float64) for rate in rates])
    angles = math.pi * coordinates[..., None] * frequencies.to(coordinates)
    return torch.cat([coordinates, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)


def fourier_channels(axes: int, bands: int) -> int:
    """Number of channels that `fourier_features` returns for this many axes."""
    check_range(0, 2**16, bands=bands)
    return axes * (2 * bands + 1)


def axis_features(grid: Sequence[int], bands: int, max_frequency: Sequence[float] | float | None = None) -> Tensor:
    """Fourier features of a grid along its axes: (sum(grid), P) float32, one row for each coordinate of each axis.

    A channel depends on one axis only, so a row is zero in the channels of the others, and the features of a cell are the
    sum of one row per axis (`grid_features`). max_frequency is the grid's shape by default: the Nyquist frequencies.
    """
    axes = len(grid)
    tables = []
    for axis, length in enumerate(grid):
        coordinates = torch.zeros(length, axes, dtype=torch.float64)
        coordinates[:, axis] = grid_coordinates((length,))[:, 0]
        features = fourier_features(coordinates, bands, list(grid) if max_frequency is None else max_frequency)
        others = [other for other in range(axes) if other != axis]
        features[:, axes + axes * bands :].unflatten(1, (axes, bands))[:, others] = 0  # cos(0) is 1
        tables.append(features)
    return torch.cat(tables).float()


def grid_features(axes: Tensor, grid: Sequence[int]) -> Tensor:
    """The positions of a grid's cells in row-major order, (M, P), from `axis_features`."""
    return outer_sum(list(axes.split(list(grid))))


def outer_sum(tables: Sequence[Tensor]) -> Tensor:
    """All sums of one row of each table (n_i, P), in row-major order: (n_1 n_2 ..., P)."""
    total = tables[0]
    for table in tables[1:]:
        total = (total[:, None] + table).flatten(0, 1)
    return total
