"""Series of measurements over time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.byte_array import ByteArray
from ..core.checks import check_counts
from ..core.errors import BadSampleError
from ..core.flatten import GridModality
from .kind import Kind, Value


class SeriesModality(GridModality):
    """Series (B, T, C). Missing values are NaN and count as the mean; an element without any value is masked."""

    def forward(self, raw: Tensor) -> ByteArray:
        found = super().forward(raw)
        return ByteArray(
            found.values.nan_to_num(), found.positions, found.grid, mask=~found.values.isnan().all(-1), axes=found.axes
        )


class Series(Kind):
    """Measurements over time, (T, C): lists or numbers of a table, npy files, or CSV files with a row for each time.

    What is not given is measured from the first training samples.

    Args:
        length: T; longer series give a window, shorter ones are masked at their end.
        channels: C.
        patch: times per element.
        mean: of each channel, or one number; values become (value - mean) / std.
        std: see mean.
        rate: times per second, if known.
        bands: frequencies of the Fourier features.
    """

    suffixes = (".npy", ".csv")
    needed = ("length", "channels", "mean", "std")

    def __init__(
        self,
        length: int = 0,
        channels: int = 0,
        patch: int = 1,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        rate: float | None = None,
        bands: int = 16,
    ) -> None:
        check_counts(length=length, channels=channels, patch=patch)
        self.length, self.channels = -(-length // patch) * patch, channels
        mean, std = (list(v) if isinstance(v, Sequence) else v for v in (mean, std))
        self.module = SeriesModality(
            (self.length,), channels, bands, (patch,), None, mean or 0.0, std or 1.0, kind="series", rate=rate
        )

    def load(self, value: Value) -> tuple[Tensor, None]:
        series = read_series(value)
        if series.shape[1] != self.channels:
            raise BadSampleError(f"has {series.shape[1]} channels instead of {self.channels}")
        first = round(max(0, len(series) - self.length) * value.position)
        padded = np.full((self.length, self.channels), np.nan, np.float32)
        found = series[first : first + self.length]
        padded[: len(found)] = found
        return torch.from_numpy(padded), None


def read_series(value: Value) -> np.ndarray:
    """The numbers of a series, (T, C) float32."""
    content = value.content
    if not isinstance(content, bytes):
        found = numbers(content)
    elif value.name.lower().endswith("csv"):
        lines = content.decode().splitlines()
        try:
            [float(word or "nan") for word in lines[0].split(",")]
        except ValueError:
            lines = lines[1:]  # a header
        found = np.genfromtxt(lines, delimiter=",", ndmin=2)
    else:
        found = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.size:
        raise BadSampleError(f"has the shape {found.shape} instead of (times, channels)")
    return found.astype(np.float32)


def measure_series(values: Sequence[Value], options: dict[str, Any]) -> dict[str, Any]:
    """The options of a Series with those that are not given: the longest length, and each channel's mean and deviation."""
    found = [read_series(value) for value in values]
    every = np.concatenate([series for series in found if series.shape[1] == found[0].shape[1]]).astype(np.float64)
    every[~np.isfinite(every)] = np.nan
    std = np.nanstd(every, axis=0)
    measured = {
        "length": max(map(len, found)),
        "channels": every.shape[1],
        "mean": np.nanmean(every, axis=0).tolist(),
        "std": np.where(std > 0, std, 1.0).tolist(),
    }
    return {**measured, **options}


def numbers(content: Any) -> np.ndarray:
    """A number, a list of numbers or a list of such lists as an array; an empty text is NaN."""
    rows = content if isinstance(content, (list, tuple, np.ndarray)) else [content]
    plain = [np.nan if value in (None, "") else value for value in rows] if np.ndim(rows[0]) == 0 else rows
    return np.array(plain, np.float32)
