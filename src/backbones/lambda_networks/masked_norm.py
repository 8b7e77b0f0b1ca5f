"""Batch normalisation of real elements only, with the channels last in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def rows(x: Tensor) -> Tensor:
    """(B, C, *grid) to (B, n, C): a view, if the channels are last in memory."""
    return x.flatten(2).transpose(1, 2)


def normalise(norm: _BatchNorm, x: Tensor, real: Tensor | None) -> Tensor:
    """Normalises the channels. In training, mean and variance are those of the real elements.

    Args:
        norm: for C channels.
        x: (B, n, C).
        real: (B, n), True for real elements; None if all are.

    Returns:
        (B, n, C). Elements that are not real hold anything.
    """
    if real is not None and norm.training:
        return normalise_real(norm, x, real[..., None])
    # as a picture with the channels last: on a CPU, other layouts take ten times as long
    picture = x.contiguous().view(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    return norm(picture).permute(0, 2, 3, 1).reshape(x.shape)


def normalise_real(norm: _BatchNorm, x: Tensor, real: Tensor) -> Tensor:
    """The same in training; real is (B, n, 1). Shapes do not depend on the mask, so that this compiles."""
    total = getattr(norm, "sum_over_ranks", lambda x: x)  # of batch normalisation that is synchronised
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(~real, 0)
    found = total(real.sum().to(wide.dtype))
    count = found.clamp(min=1)
    mean = total(wide.sum(dim=(0, 1))) / count
    centred = (wide - mean).masked_fill(~real, 0)
    variance = total(centred.square().sum(dim=(0, 1))) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
            weight = (found > 0).to(norm.running_mean.dtype) * momentum  # a batch without elements says nothing
            unbiased = variance * (count / (count - 1).clamp(min=1))
            for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
                running.lerp_(new.to(running.dtype), weight)
    return (centred * ((variance + norm.eps).rsqrt() * norm.weight) + norm.bias).to(x.dtype)
