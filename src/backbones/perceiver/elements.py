"""The elements of one modality as a matrix x^ that is multiplied chunk by chunk: `Elements` in general.

An element is x = (values, positions, modality vector), normalised by a LayerNorm without affine map: x^ = (x - mean) / std.
Reading needs x^ for two products: scores = x^ rows' and read = weights' x^. Scores and weights of R rows and m elements are
(B, m, R), at least float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-5
LOG2_E = 1 / log(2)


def concat_channels(values: Tensor, positions: Tensor, vector: Tensor | None) -> Tensor:
    """x, at least in float32: values (B, m, Cv), positions (m, P) or (B, m, P) and vector (U,) to (B, m, C)."""
    wide = torch.promote_types(values.dtype, torch.float32)
    parts = [values.to(wide), positions.to(wide).expand(len(values), -1, -1)]
    if vector is not None:
        parts.append(vector.to(wide).expand(*values.shape[:2], -1))
    return torch.cat(parts, dim=-1)


def chunk_slices(count: int, chunk: int) -> list[slice]:
    """Slices that split `count` elements into equal parts of at most `chunk`."""
    size = -(-count // -(-count // chunk))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


@dataclass(frozen=True)
class Elements:
    """Elements with any positions.

    Attributes:
        values: (B, M, Cv).
        positions: (M, P) or (B, M, P).
        vector: the modality vector (U,) or None.
        mask: (B, M), True where an element is real, or None.
        mean: (B, M), of the LayerNorm over all C channels.
        rstd: (B, M), one over the LayerNorm's standard deviation.
        normalised: x^ (B, M, C) if it is stored for all cross-attends, else None.
    """

    values: Tensor
    positions: Tensor
    vector: Tensor | None
    mask: Tensor | None
    mean: Tensor
    rstd: Tensor
    normalised: Tensor | None

    @property
    def columns(self) -> dict[str, slice]:
        """The channels of each part of x."""
        ends = [self.values.shape[-1], self.values.shape[-1] + self.positions.shape[-1]]
        return {"values": slice(0, ends[0]), "positions": slice(*ends), "vector": slice(ends[1], None)}

    def examples(self, part: slice) -> Elements:
        """Those of some examples."""
        own = self.positions.dim() == 3
        return replace(
            self,
            values=self.values[part],
            positions=self.positions[part] if own else self.positions,
            mask=None if self.mask is None else self.mask[part],
            mean=self.mean[part],
            rstd=self.rstd[part],
            normalised=None if self.normalised is None else self.normalised[part],
        )

    def chunks(self, size: int, dtype: torch.dtype) -> Iterator[tuple[slice, Elements]]:
        """At most `size` elements at a time, with x^ in `dtype`."""
        for part in chunk_slices(self.values.shape[1], size):
            chunk = replace(
                self,
                values=self.values[:, part],
                positions=self.positions[..., part, :],
                mask=None if self.mask is None else self.mask[:, part],
                mean=self.mean[:, part],
                rstd=self.rstd[:, part],
                normalised=None if self.normalised is None else self.normalised[:, part],
            )
            yield part, replace(chunk, normalised=chunk.normalise().to(dtype))

    def normalise(self) -> Tensor:
        """x^: (B, M, C)."""
        if self.normalised is not None:
            return self.normalised
        x = concat_channels(self.values, self.positions, self.vector)
        return x.sub_(self.mean[..., None]).mul_(self.rstd[..., None])

    def tables(self, rows: Tensor, scale: float) -> tuple[Any, ...]:
        """What `scores` needs of the rows (B, R, C). Half-precision rows are not rounded again: scores are scaled."""
        if rows.dtype in (torch.float16, torch.bfloat16):
            return rows, scale
        return rows * scale, 1.0

    def scores(self, tables: tuple[Any, ...], offset: Tensor) -> Tensor:
        """scale x^ rows' + offset (B, R), of a chunk: (B, m, R)."""
        (rows, scale), x = tables, self.normalise()
        if rows.dtype == offset.dtype:
            return torch.baddbmm(offset[:, None], x, rows.transpose(1, 2))
        scores = torch.bmm(x, rows.transpose(1, 2)).to(offset.dtype)
        return (scores if scale == 1 else scores.mul_(scale)).add_(offset[:, None])

    def zero_sums(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What `add` sums over chunks, (..., R)."""
        return (torch.zeros_like(rows.transpose(1, 2), dtype=dtype, memory_format=torch.contiguous_format),)

    def add(self, sums: tuple[Tensor, ...], weights: Tensor) -> Tensor:
        """Adds weights' x^ of a chunk to the sums; overwrites the weights. Returns the weights' totals: (B, R)."""
        (read,), x = sums, self.normalise()
        read += torch.bmm(x.transpose(1, 2), weights.to(x.dtype))
        return weights.sum(dim=1)

    def read(self, sums: tuple[Tensor, ...]) -> Tensor:
        """weights' x^ of all chunks: (B, R, C)."""
        return sums[0].transpose(1, 2)
