"""The contract between data and models: what a batch holds, and what can be known of it before any data is read."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

TaskKind = Literal["single_label", "multi_label", "detection"]
WINDOW = re.compile(r"@\d{2,}$")


@dataclass(frozen=True)
class ByteArray:
    """One modality of one batch, flattened to M elements in row-major order (Perceiver, section 3.1).

    values: (B, M, C), what was measured: pixel values, waveform patches, xyz.
    positions: (M, P) where the batch shares them, (B, M, P) where each example has its own.
    grid: the shape before flattening, such as (224, 224) or (16, 28, 28); None for sets. Where elements were permuted,
        a backbone that lays them out on it sees the permuted picture (table 2).
    mask: (B, M), True where an element is real; None where all are.
    """

    values: Tensor
    positions: Tensor
    grid: tuple[int, ...] | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        batch, elements, _ = self.values.shape
        shared = self.positions.dim() == 2
        if self.positions.shape[:-1] != ((elements,) if shared else (batch, elements)):
            raise ValueError(f"positions {tuple(self.positions.shape)} do not fit values {tuple(self.values.shape)}")
        if self.grid is not None and prod(self.grid) != elements:
            raise ValueError(f"grid {self.grid} has {prod(self.grid)} elements, values have {elements}")
        if self.mask is not None and self.mask.shape != (batch, elements):
            raise ValueError(f"mask {tuple(self.mask.shape)} does not fit values {tuple(self.values.shape)}")

    def concat(self) -> Tensor:
        """Values and positions side by side: (B, M, C + P)."""
        positions = self.positions.to(self.values.dtype)
        return torch.cat([self.values, positions.expand(len(self.values), -1, -1)], dim=-1)

    def permute(self, order: Tensor) -> ByteArray:
        """Reorder the elements; values, positions and mask move together, so no information is lost.

        order: (M,) for one order of all examples, (B, M) for one order each.
        """
        if order.dim() == 1:
            return replace(
                self,
                values=self.values[:, order],
                positions=self.positions[..., order, :],
                mask=None if self.mask is None else self.mask[:, order],
            )
        rows = torch.arange(len(self.values), device=order.device)[:, None]
        own_positions = self.positions.expand(len(self.values), -1, -1)
        return replace(
            self,
            values=self.values[rows, order],
            positions=own_positions[rows, order],
            mask=None if self.mask is None else self.mask[rows, order],
        )

    def to(self, *args, **kwargs) -> ByteArray:
        """Move or cast values and positions as `Tensor.to` does; the mask moves but stays bool."""
        values = self.values.to(*args, **kwargs)
        mask = None if self.mask is None else self.mask.to(values.device)
        return replace(self, values=values, positions=self.positions.to(*args, **kwargs), mask=mask)


@dataclass(frozen=True)
class Batch:
    """What a model is trained on: one ByteArray per modality and what to predict.

    target: (B,) class numbers for single_label, or (B, classes) scores that add up to 1 where training mixes examples;
        (B, classes) of 0 and 1 for multi_label; a list with a dict of tensors per example for detection.
    keys: one string per example, its name in the data set; windows of one clip are KEY@00, KEY@01, ..., see `sample_of`.
    weight: (B,), 0 where an example only pads the batch (or could not be decoded), else 1.
    """

    inputs: dict[str, ByteArray]
    target: Any
    keys: list[str]
    weight: Tensor


def sample_of(key: str) -> str:
    """The sample that a key names: all windows of a clip are one."""
    return WINDOW.sub("", key)


@dataclass(frozen=True)
class ModalitySpec:
    """One modality's shape: C channels, P position channels, M elements, the grid before flattening (None for sets) and
    the number of coordinates of an element."""

    channels: int
    position_channels: int
    elements: int
    grid: tuple[int, ...] | None
    coordinates: int


@dataclass(frozen=True)
class DataSpec:
    """What a model needs to know of the data to be built, before any of them is read."""

    modalities: dict[str, ModalitySpec]
    task: TaskKind
    classes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def to_dict(self) -> dict:
        """Plain lists and dicts, as they are written to YAML, JSON and checkpoints."""
        plain = asdict(self)
        plain["classes"] = list(self.classes)
        for modality in plain["modalities"].values():
            modality["grid"] = None if modality["grid"] is None else list(modality["grid"])
        return plain

    def example_inputs(self, batch_size: int = 1, device: str | torch.device = "cpu") -> dict[str, ByteArray]:
        """Random inputs of the right shapes, for counting operations and for tests; `device="meta"` takes no memory."""
        return {
            name: ByteArray(
                torch.randn(batch_size, m.elements, m.channels, device=device),
                torch.randn(m.elements, m.position_channels, device=device),
                m.grid,
            )
            for name, m in self.modalities.items()
        }
