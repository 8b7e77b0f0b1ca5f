"""Coordinates and Fourier features against the paper's formula, written out in plain loops."""

import itertools
import math

import pytest
import torch

from datamodules import GridModality
from datamodules.core.positions import (
    axis_features,
    fourier_channels,
    fourier_features,
    grid_coordinates,
    grid_features,
)

GRIDS = [(7,), (4, 5), (3, 2, 4), (2, 3, 2, 3)]


def spaced(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * i / (count - 1) for i in range(count)]


def features_by_loops(grid: tuple[int, ...], bands: int, max_frequency: list[float]) -> list[list[float]]:
    """Raw coordinates, then all sines axis by axis, then all cosines (Perceiver, section 3.2)."""
    rows = []
    for cell in itertools.product(*[spaced(-1, 1, length) for length in grid]):
        sines, cosines = [], []
        for x, rate in zip(cell, max_frequency, strict=True):
            for f in spaced(1, rate / 2, bands):
                sines.append(math.sin(f * math.pi * x))
                cosines.append(math.cos(f * math.pi * x))
        rows.append([*cell, *sines, *cosines])
    return rows


@pytest.mark.parametrize("grid", GRIDS)
def test_features_equal_the_formula(grid):
    rates = [10.0 + axis for axis in range(len(grid))]
    features = fourier_features(grid_coordinates(grid), 6, rates)
    expected = torch.tensor(features_by_loops(grid, 6, rates), dtype=torch.float64)
    assert features.dtype == torch.float64
    assert features.shape[-1] == fourier_channels(len(grid), 6)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("nyquist", [True, False])
def test_the_features_of_a_cell_are_the_sum_of_one_row_per_axis(grid, nyquist):
    rates = list(grid) if nyquist else [10.0 + axis for axis in range(len(grid))]
    axes = axis_features(grid, 6, None if nyquist else rates)
    assert axes.shape == (sum(grid), fourier_channels(len(grid), 6))
    assert torch.equal(grid_features(axes, grid), fourier_features(grid_coordinates(grid), 6, rates).float())


def test_wrong_number_of_frequencies_is_refused():
    with pytest.raises(ValueError, match="2 entries for 3 axes"):
        fourier_features(torch.zeros(1, 3), 2, [4.0, 4.0])


@pytest.mark.parametrize(("shape", "patch"), [((16,), (2,)), ((8, 12), (1, 1)), ((8, 16, 24), (2, 4, 4))])
def test_grid_modality_has_no_frequency_above_nyquist_by_default(shape, patch):
    bands = 5
    modality = GridModality(shape, channels=1, bands=bands, patch=patch)
    grid = [s // p for s, p in zip(shape, patch, strict=True)]
    expected = features_by_loops(tuple(grid), bands, [float(n) for n in grid])
    torch.testing.assert_close(modality.positions, torch.tensor(expected), rtol=0, atol=1e-5)
