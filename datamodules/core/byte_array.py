"""What data and models agree on: the contents of a batch, and what is known about it before any data is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .checks import check_range
from .errors import UserError
from .positions import grid_features

TaskKind = Literal["single_label", "multi_label", "regression", "detection"]
ModalityKind = Literal["image", "video", "audio", "spectrogram", "points", "text", "series"]


@dataclass(frozen=True)
class ByteArray:
    """One modality of a batch, flattened to M elements in row-major order (Perceiver, section 3.1).

    Args:
        values: (B, M, C), the measurements: pixel values, waveform patches, xyz.
        positions: (M, P) if all examples share them, (B, M, P) if each example has its own.
        grid: shape before flattening, such as (224, 224) or (16, 28, 28); None for sets. After a permutation of the
            elements, a backbone that restores the grid sees the permuted image (table 2).
        mask: (B, M), True for real elements and False for padding; None if all elements are real.
        axes: (sum(grid), P) if positions are a sum of one table per axis of the grid, whose tables follow one another here:
            the position of cell (y, x) is axes[y] + axes[grid[0] + x]. None if they are not. See `axis_features`.
        order: (M,) or (B, M), the cell of the grid that each element was before `permute`; None if no element has moved.
    """

    values: Tensor
    positions: Tensor
    grid: tuple[int, ...] | None = None
    mask: Tensor | None = None
    axes: Tensor | None = None
    order: Tensor | None = None

    def __post_init__(self) -> None:
        batch, elements, _ = self.values.shape
        shared = self.positions.dim() == 2
        if self.positions.shape[:-1] != ((elements,) if shared else (batch, elements)):
            raise ValueError(f"positions {tuple(self.positions.shape)} do not fit values {tuple(self.values.shape)}")
        if self.grid is not None and prod(self.grid) != elements:
            raise ValueError(f"grid {self.grid} has {prod(self.grid)} elements, values have {elements}")
        if self.mask is not None and self.mask.shape != (batch, elements):
            raise ValueError(f"mask {tuple(self.mask.shape)} does not fit values {tuple(self.values.shape)}")
        if self.axes is not None and self.axes.shape != (sum(self.grid or ()), self.positions.shape[-1]):
            raise ValueError(f"axes {tuple(self.axes.shape)} do not fit positions {tuple(self.positions.shape)}")
        if self.order is not None and self.order.shape not in ((elements,), (batch, elements)):
            raise ValueError(f"order {tuple(self.order.shape)} does not fit values {tuple(self.values.shape)}")

    def concat(self) -> Tensor:
        """Concatenates values and positions: (B, M, C + P)."""
        positions = self.positions.to(self.values.dtype)
        return torch.cat([self.values, positions.expand(len(self.values), -1, -1)], dim=-1)

    def permute(self, order: Tensor) -> ByteArray:
        """Reorders the elements. Values, positions and mask move together, so no information is lost.

        Args:
            order: (M,) for one order shared by all examples, (B, M) for one order per example.
        """
        if order.dim() == 1:
            return replace(
                self,
                values=self.values[:, order],
                positions=self.positions[..., order, :],
                mask=None if self.mask is None else self.mask[:, order],
                order=order if self.order is None else self.order[..., order],
            )
        rows = torch.arange(len(self.values), device=order.device)[:, None]
        own_positions = self.positions.expand(len(self.values), -1, -1)
        return replace(
            self,
            values=self.values[rows, order],
            positions=own_positions[rows, order],
            mask=None if self.mask is None else self.mask[rows, order],
            order=order if self.order is None else self.order.expand(len(self.values), -1)[rows, order],
        )

    def restore(self) -> ByteArray:
        """Puts permuted elements with `axes` back into the order of their grid."""
        if self.order is None or self.axes is None or self.grid is None:
            return self
        places = torch.arange(self.order.shape[-1], device=self.order.device).expand_as(self.order)
        back = torch.empty_like(self.order).scatter_(-1, self.order, places)
        positions = grid_features(self.axes, self.grid)  # not moved back: by example they are large
        return replace(replace(self, positions=positions).permute(back), positions=positions, order=None)

    def examples(self, part: slice | Tensor) -> ByteArray:
        """Only some of the examples: a slice, or their numbers."""
        return replace(
            self,
            values=self.values[part],
            positions=self.positions[part] if self.positions.dim() == 3 else self.positions,
            mask=None if self.mask is None else self.mask[part],
            order=self.order[part] if self.order is not None and self.order.dim() == 2 else self.order,
        )

    def to(self, *args, **kwargs) -> ByteArray:
        """Moves or casts values and positions like `Tensor.to`. Mask and order move too but keep their dtypes."""
        values = self.values.to(*args, **kwargs)
        return replace(
            self,
            values=values,
            positions=self.positions.to(*args, **kwargs),
            mask=None if self.mask is None else self.mask.to(values.device),
            axes=None if self.axes is None else self.axes.to(*args, **kwargs),
            order=None if self.order is None else self.order.to(values.device),
        )


@dataclass(frozen=True)
class Batch:
    """What a model is trained on: one ByteArray per modality, and the targets.

    Args:
        inputs: byte arrays by the name of their modality.
        target: see DataSpec; (B, classes) scores that sum to 1 for single_label if training mixes examples.
        keys: one string per example, its name in the data set. Windows of one clip are KEY@00, KEY@01, ...; see
            `datamodules.core.windows`.
        weight: (B,), 1 for real examples, 0 for padding and for samples that could not be decoded.
    """

    inputs: dict[str, ByteArray]
    target: Any
    keys: list[str]
    weight: Tensor


@dataclass(frozen=True)
class ModalitySpec:
    """The shape of one modality and what it represents.

    Args:
        channels: C, channels of the values.
        position_channels: P, channels of the positions.
        elements: M, the number of elements.
        grid: shape before flattening; None for sets.
        coordinates: number of coordinates of an element's position.
        kind: what the values are; `series` for measurements of any other kind.
        rate: frames (video, spectrogram) or samples (audio, series) per second before patching; None if there is no
            time axis.
    """

    channels: int
    position_channels: int
    elements: int
    grid: tuple[int, ...] | None
    coordinates: int
    kind: ModalityKind = "series"
    rate: float | None = None

    def __post_init__(self) -> None:
        check_range(1, 2**26, channels=self.channels, elements=self.elements, grid=self.grid)
        check_range(0, 2**20, position_channels=self.position_channels)
        if self.kind not in get_args(ModalityKind):
            raise UserError(f"unknown modality kind {self.kind!r}: use one of {', '.join(get_args(ModalityKind))}")


@dataclass(frozen=True)
class DataSpec:
    """What a model needs to know about its data to be built, before any of it is read.

    The task determines the target of a batch:

    - single_label: (B,) int64 class indices
    - multi_label: (B, classes) float, 0 or 1
    - regression: (B, quantities) float
    - detection: a list with one dict of tensors per image, see `datamodules.detection.targets.DetectionFlatten`

    Args:
        modalities: specs by the name of the modality.
        task: kind of the target.
        classes: names of the classes, or of the predicted quantities for regression.
    """

    modalities: dict[str, ModalitySpec]
    task: TaskKind
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.task not in get_args(TaskKind):
            raise UserError(f"unknown task {self.task!r}: use one of {', '.join(get_args(TaskKind))}")

    @property
    def num_classes(self) -> int:
        """Number of classes, or of predicted quantities."""
        return len(self.classes)

    def to_dict(self) -> dict:
        """Converts the spec to plain lists and dicts for YAML, JSON and checkpoints."""
        plain = asdict(self)
        plain["classes"] = list(self.classes)
        for modality in plain["modalities"].values():
            modality["grid"] = None if modality["grid"] is None else list(modality["grid"])
        return plain

    def has_modalities(self, stored: dict[str, dict]) -> bool:
        """Whether the modalities equal stored ones, as `to_dict` writes them.

        Fields that are missing there are not compared: older runs stored neither `kind` nor `rate`.
        """
        own = self.to_dict()["modalities"]
        return own.keys() == stored.keys() and all({**own[name], **stored[name]} == own[name] for name in own)

    def example_inputs(self, batch_size: int = 1, device: str | torch.device = "cpu") -> dict[str, ByteArray]:
        """Random inputs of the right shapes, to count operations and for tests. `device="meta"` allocates no memory."""
        return {
            name: ByteArray(
                torch.randn(batch_size, m.elements, m.channels, device=device),
                torch.randn(m.elements, m.position_channels, device=device),
                m.grid,
            )
            for name, m in self.modalities.items()
        }
