"""Turns compact tensors (uint8 pixels, int16 sound) into byte arrays on the device of the batch.

A modality is a module with a `spec` and a `forward(raw) -> ByteArray`. Positions depend only on the shape, so they are
computed once, kept on the device and shared by all examples.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from .byte_array import Batch, ByteArray, ModalityKind, ModalitySpec
from .positions import axis_features, fourier_channels, grid_features

Permutation = Literal["none", "fixed", "per_example"]
KIND_OF_AXES: dict[int, ModalityKind] = {2: "image", 3: "video"}


class GridModality(nn.Module):
    """Measurements on a regular grid, split into patches: pixels of an image, samples of a sound, patches of a video.

    Args:
        shape: grid of the raw data, such as (32, 224, 224) for frames, rows and columns.
        channels: channels of the raw data.
        bands: frequencies per axis of the Fourier features.
        patch: size of one element along each axis, such as (2, 8, 8); one cell by default.
        max_frequency: maximum frequencies of the Fourier features, per axis; the shape of the patch grid by default.
        mean: raw values become (raw - mean) / std; a number, or one per channel.
        std: see mean.
        kind: what the values are; by default image for two axes, video for three, and series otherwise.
        rate: frames or samples per second, if there is a time axis.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        bands: int,
        patch: Sequence[int] | None = None,
        max_frequency: Sequence[float] | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        kind: ModalityKind | None = None,
        rate: float | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.channels = tuple(shape), channels
        self.patch = tuple(patch) if patch is not None else (1,) * len(shape)
        if len(self.patch) != len(self.shape) or any(s % p for s, p in zip(self.shape, self.patch, strict=True)):
            raise ValueError(f"shape {self.shape} does not divide into patches {self.patch}")
        grid = tuple(s // p for s, p in zip(self.shape, self.patch, strict=True))
        self.spec = ModalitySpec(
            channels=channels * prod(self.patch),
            position_channels=fourier_channels(len(grid), bands),
            elements=prod(grid),
            grid=grid,
            coordinates=len(grid),
            kind=kind or KIND_OF_AXES.get(len(grid), "series"),
            rate=rate,
        )
        self.register_buffer("axes", axis_features(grid, bands, max_frequency), persistent=False)
        self.register_buffer("positions", grid_features(self.axes, grid), persistent=False)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, raw: Tensor) -> ByteArray:
        """Takes raw data (B, *shape, channels), or (B, *shape) if there is one channel."""
        if raw.shape[1:] == self.shape:
            raw = raw[..., None]
        if raw.shape[1:] != (*self.shape, self.channels):
            raise ValueError(
                f"expected (B, {', '.join(map(str, self.shape))}, {self.channels}), got {tuple(raw.shape)}"
            )
        values = (raw.to(self.positions.dtype) - self.mean) / self.std
        split = [n for length, p in zip(self.shape, self.patch, strict=True) for n in (length // p, p)]
        axes = len(self.shape)
        # (B, g1, p1, g2, p2, ..., C) -> (B, g1, g2, ..., p1, p2, ..., C)
        values = values.reshape(len(raw), *split, self.channels)
        values = values.permute(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
        values = values.reshape(len(raw), self.spec.elements, self.spec.channels)
        return ByteArray(values, self.positions, self.spec.grid, axes=self.axes)


class Flatten(nn.Module):
    """Turns a compact batch from a loader into a Batch. Moves itself to the device of the batch.

    Args:
        modalities: modules by the name of their tensor in the compact batch.
        permutation: order of the elements (Perceiver, table 2): `none`; `fixed`, one order for all examples, drawn from
            permutation_seed; or `per_example`, drawn from the batch's `order_seed` (B,) int64. Values and positions move
            together.
        permutation_seed: seed of the fixed permutation.
        mixing: mixes the images of a compact batch, such as `datamodules.images.mixing.Mixing`; applied before the
            permutation to batches with a `mix_seed`, which training loaders add.
    """

    def __init__(
        self,
        modalities: Mapping[str, nn.Module],
        permutation: Permutation = "none",
        permutation_seed: int = 0,
        mixing: Callable[[dict], dict] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = nn.ModuleDict(dict(modalities))
        self.permutation, self.permutation_seed, self.mixing = permutation, permutation_seed, mixing

    def forward(self, compact: dict) -> Batch:
        device = compact["weight"].device
        self.to(device)
        if self.mixing is not None and "mix_seed" in compact:
            compact = self.mixing(compact)
        inputs = {name: modality(compact[name]) for name, modality in self.modalities.items()}
        if self.permutation != "none":
            fixed = self.permutation == "fixed"
            seeds = torch.tensor(self.permutation_seed, device=device) if fixed else compact["order_seed"]
            inputs = {
                name: array.permute(random_orders(seeds, array.values.shape[1])) for name, array in inputs.items()
            }
        return Batch(inputs, compact["target"], compact["key"], compact["weight"])


def random_orders(seeds: Tensor, elements: int) -> Tensor:
    """Draws an order of the elements for every seed: (...) int64 to (..., M). The same on every device.

    Elements are sorted by splitmix64 (Steele et al. 2014) of the seed and their index.
    """
    steps = torch.arange(1, elements + 1, device=seeds.device) * signed(0x9E3779B97F4A7C15)
    return splitmix64(splitmix64(seeds)[..., None] + steps).argsort(dim=-1, stable=True)


def splitmix64(bits: Tensor) -> Tensor:
    """The output function of splitmix64. Products wrap around."""
    bits = (bits ^ shift_right(bits, 30)) * signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ shift_right(bits, 27)) * signed(0x94D049BB133111EB)
    return bits ^ shift_right(bits, 31)


def shift_right(bits: Tensor, count: int) -> Tensor:
    """Shifts unsigned 64-bit integers, which torch has no arithmetic for."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def signed(bits: int) -> int:
    """The int64 with the same 64 bits."""
    return bits - (1 << 64) if bits >> 63 else bits
