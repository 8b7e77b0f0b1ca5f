"""What can happen to inputs, in five levels each (Hendrycks and Dietterich 2019, arXiv 1903.12261, for pictures).

A corruption changes a compact batch before `datamodule.flatten`, in the units of the data, or masks elements after it. What
it draws depends on the key of the sample, not on the batch, and all levels share it: level 5 drops what level 1 drops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules import ByteArray, ModalitySpec

Draw = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """One way to damage a modality.

    Attributes:
        name: what tables call it.
        unit: what the amounts are.
        amounts: of the five levels, from the mildest.
        draw: one compact sample and a generator to what the corruption draws for it; None if it draws nothing.
        damage: (compact tensor (B, ...), drawn (B, ...), amount, modality) to the damaged tensor.
        mask: (byte array, drawn, amount) to the byte array; for damage to elements, instead of `damage`.
    """

    name: str
    unit: str
    amounts: tuple[float, float, float, float, float]
    draw: Draw | None = None
    damage: Callable[[Tensor, Tensor | None, float, Any], Tensor] | None = None
    mask: Callable[[ByteArray, Tensor, float], ByteArray] | None = None


def normal(sample: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(sample.shape, generator=generator)


def place(sample: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(2, generator=generator)


def direction(sample: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(3, generator=generator)


def spread(modality: Any, raw: Tensor) -> Tensor:
    """The standard deviation that noise is measured in: that of the normalisation, or the reach of a cloud of points."""
    if (std := getattr(modality, "std", None)) is not None:
        return std.to(raw.device)
    return (raw - raw.mean(dim=1, keepdim=True)).abs().flatten(1).amax(1).view(-1, *[1] * (raw.dim() - 1))


def noise(raw: Tensor, drawn: Tensor | None, amount: float, modality: Any) -> Tensor:
    """Adds Gaussian noise, a multiple of `spread`."""
    raw = raw.float()
    return raw if drawn is None else raw + amount * spread(modality, raw) * drawn.to(raw.device)


def planes(raw: Tensor, modality: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Pictures and frames as (n, channels, rows, columns), and the way back."""
    rows = len(modality.shape) - 1  # the axis of rows in (B, [frames], rows, columns, [channels])
    flat = raw.float().reshape(-1, *modality.shape[rows - 1 :], modality.channels).movedim(-1, 1)
    return flat, lambda x: x.movedim(1, -1).reshape(raw.shape)


def blur(raw: Tensor, drawn: Tensor | None, amount: float, modality: Any) -> Tensor:
    """The mean over a square of `amount` pixels around each, an odd number."""
    x, back = planes(raw, modality)
    side = int(amount) // 2
    padded = F.pad(x, (side,) * 4, mode="replicate")
    rows = F.avg_pool2d(padded, (int(amount), 1), stride=1)  # first one way, then the other: a fifth of the additions
    return back(F.avg_pool2d(rows, (1, int(amount)), stride=1))


def coarse(raw: Tensor, drawn: Tensor | None, amount: float, modality: Any) -> Tensor:
    """Blocks of `amount` x `amount` pixels get their mean: a lower resolution."""
    x, back = planes(raw, modality)
    block = int(amount)
    means = F.avg_pool2d(x, block, ceil_mode=True, count_include_pad=False)
    wide = means.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)
    return back(wide[..., : x.shape[2], : x.shape[3]])


def occluded(raw: Tensor, drawn: Tensor | None, amount: float, modality: Any) -> Tensor:
    """A rectangle with this share of the picture, at a random place, the same in all frames, gets the mean of the data."""
    assert drawn is not None
    axis = len(modality.shape) - 1  # of rows, in raw
    out = raw.float().clone()
    mean = modality.mean.to(raw.device)
    for number, (down, right) in enumerate(drawn.tolist()):
        box = []
        for length, where in zip(modality.shape[-2:], (down, right), strict=True):
            size = ceil(length * amount**0.5)
            start = int(where * (length - size + 1))
            box.append(slice(start, start + size))
        out[(number, *[slice(None)] * (axis - 1), *box)] = mean if raw.dim() > len(modality.shape) + 1 else mean.mean()
    return out


def held(raw: Tensor, drawn: Tensor | None, amount: float, modality: Any) -> Tensor:
    """Every frame is shown `amount` times: a lower frame rate."""
    frames = torch.arange(modality.shape[0], device=raw.device) // int(amount) * int(amount)
    return raw.index_select(1, frames)


def averaged(raw: Tensor, drawn: Tensor | None, amount: float, modality: Any) -> Tensor:
    """Runs of `amount` successive values get their mean: a lower sampling rate."""
    x = raw.float().reshape(len(raw), modality.shape[0], -1).transpose(1, 2)
    means = F.avg_pool1d(x, int(amount), ceil_mode=True, count_include_pad=False)
    return means.repeat_interleave(int(amount), dim=2)[..., : x.shape[2]].transpose(1, 2).reshape(raw.shape)


def gap(raw: Tensor, drawn: Tensor | None, amount: float, modality: Any) -> Tensor:
    """A stretch with this share of the time gets the mean of the data: silence."""
    assert drawn is not None
    out, length = raw.float().clone(), modality.shape[0]
    size = ceil(length * amount)
    mean = modality.mean.to(raw.device)
    for number, where in enumerate(drawn[:, 0].tolist()):
        start = int(where * (length - size + 1))
        out[number, start : start + size] = mean if out.dim() > len(modality.shape) + 1 else mean.mean()
    return out


def ranks(sample: Tensor, generator: torch.Generator) -> Tensor:
    """The seed of an order of the elements."""
    return torch.randint(2**62, (1,), generator=generator)


def dropped(array: ByteArray, drawn: Tensor, amount: float) -> ByteArray:
    """A random share of the elements is gone: masked, and zero for backbones that have no masks, such as ResNet."""
    elements = array.values.shape[1]
    scores = torch.stack(
        [torch.rand(elements, generator=torch.Generator().manual_seed(int(seed))) for seed in drawn[:, 0]]
    )
    order = scores.argsort(dim=1).argsort(dim=1).to(array.values.device)
    return without(array, order < round(amount * elements))


def cut(array: ByteArray, drawn: Tensor, amount: float) -> ByteArray:
    """The points furthest along a random direction are gone, this share of them: a side that was not scanned."""
    axes = min(3, array.values.shape[2])  # points in the plane have two
    along = (array.values[..., :axes] * drawn.to(array.values)[:, None, :axes]).sum(dim=2)
    order = along.argsort(dim=1, descending=True).argsort(dim=1)
    return without(array, order < round(amount * array.values.shape[1]))


def without(array: ByteArray, gone: Tensor) -> ByteArray:
    """The byte array without some of its elements: gone is (B, M)."""
    kept = ~gone if array.mask is None else array.mask & ~gone
    return replace(array, values=array.values.masked_fill(gone[..., None], 0), mask=kept)


NOISE = Corruption("noise", "standard deviations", (0.1, 0.25, 0.5, 1.0, 2.0), normal, noise)
DROPPED = Corruption("dropped elements", "share", (0.1, 0.25, 0.5, 0.75, 0.9), ranks, mask=dropped)
BLUR = Corruption("blur", "pixels", (3, 5, 7, 9, 11), None, blur)
COARSE = Corruption("low resolution", "pixels a block", (2, 3, 4, 6, 8), None, coarse)
OCCLUSION = Corruption("occlusion", "share", (0.05, 0.1, 0.2, 0.35, 0.5), place, occluded)
FRAMES = Corruption("low frame rate", "frames held", (2, 3, 4, 6, 8), None, held)
RATE = Corruption("low rate", "values averaged", (2, 4, 8, 16, 32), None, averaged)
GAP = Corruption("gap", "share", (0.1, 0.2, 0.4, 0.6, 0.8), place, gap)
JITTER = Corruption("noise", "share of the reach", (0.01, 0.025, 0.05, 0.1, 0.2), normal, noise)
CUT = Corruption("cut off", "share", (0.1, 0.2, 0.4, 0.6, 0.8), direction, mask=cut)

OF_KIND: dict[str, tuple[Corruption, ...]] = {
    "image": (NOISE, BLUR, COARSE, OCCLUSION, DROPPED),
    "video": (NOISE, BLUR, COARSE, OCCLUSION, FRAMES, DROPPED),
    "audio": (NOISE, RATE, GAP, DROPPED),
    "spectrogram": (NOISE, RATE, GAP, DROPPED),
    "points": (JITTER, CUT, DROPPED),
    "text": (DROPPED,),
    "series": (NOISE, DROPPED),
}


def corruptions_of(spec: ModalitySpec, modality: Any) -> tuple[Corruption, ...]:
    """Those that fit a modality: its kind, and whether its compact tensor is the grid that they change."""
    found = OF_KIND[spec.kind]
    if hasattr(modality, "mean") and hasattr(modality, "shape"):
        return found
    return tuple(c for c in found if c.mask is not None or (spec.kind == "points" and c is JITTER))
