"""From compact tensors (uint8 pixels, int16 sound) to byte arrays, on whatever device the batch lies.

A modality is a module with a `spec` and a `forward(raw) -> ByteArray`. Positions depend on the shape alone: they are
computed once, kept on the device, and shared by all examples of all batches.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from ..images.mixing import Mixing
from .byte_array import Batch, ByteArray, ModalitySpec
from .positions import fourier_channels, fourier_features, grid_coordinates

Permutation = Literal["none", "fixed", "per_example"]


class GridModality(nn.Module):
    """Measurements on a regular grid, cut into patches: pixels of an image, samples of a sound, patches of a video.

    shape: the grid as it is read, such as (32, 224, 224) for frames, rows and columns.
    patch: the cells of one element along each axis, such as (2, 8, 8); one cell if left out.
    mean, std: raw values become (raw - mean) / std; numbers or one per channel.
    bands, max_frequency: of the Fourier features; max_frequency is the patch grid's length along each axis if left out.
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
        )
        positions = fourier_features(grid_coordinates(grid), bands, list(max_frequency or grid))
        self.register_buffer("positions", positions.float(), persistent=False)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, raw: Tensor) -> ByteArray:
        """raw: (B, *shape, channels), or (B, *shape) for one channel."""
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
        return ByteArray(
            values.reshape(len(raw), self.spec.elements, self.spec.channels), self.positions, self.spec.grid
        )


class Flatten(nn.Module):
    """A compact batch, as loaders hand it over, to a Batch. Moves itself to the batch's device.

    permutation: the order of the elements (Perceiver, table 2). `fixed` is one for all examples, made of permutation_seed;
        `per_example` makes each example's of the batch's `order_seed` (B,) int64. Values and positions move together.
    mixing: mixes the pictures of batches with a `mix_seed`, which training loaders add, before they are permuted.
    """

    def __init__(
        self,
        modalities: Mapping[str, nn.Module],
        permutation: Permutation = "none",
        permutation_seed: int = 0,
        mixing: Mixing | None = None,
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
    """An order of the elements for every seed: (...) int64 to (..., M). The same on every device.

    The elements are sorted by splitmix64 (Steele et al. 2014) of the seed and their number.
    """
    steps = torch.arange(1, elements + 1, device=seeds.device) * signed(0x9E3779B97F4A7C15)
    return mix(mix(seeds)[..., None] + steps).argsort(dim=-1, stable=True)


def mix(bits: Tensor) -> Tensor:
    """splitmix64's output function; products wrap around."""
    bits = (bits ^ shift_right(bits, 30)) * signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ shift_right(bits, 27)) * signed(0x94D049BB133111EB)
    return bits ^ shift_right(bits, 31)


def shift_right(bits: Tensor, count: int) -> Tensor:
    """Of 64 bits without a sign, which torch has no arithmetic for."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits
