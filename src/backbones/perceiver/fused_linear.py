"""LayerNorm or GELU followed by a linear map, saving only the input for the backward pass.

Autograd would also save the output of LayerNorm or GELU. It is as large as the input, and recomputing it takes about a
hundredth of the linear map's time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def norm_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """linear(norm(x)): (..., C) to (..., D). Under autocast the norm is computed in its parameters' dtype."""
    return NormLinear.apply(x, norm.weight, norm.bias, linear.weight, linear.bias, norm.eps)


def gelu_linear(x: Tensor, linear: nn.Linear) -> Tensor:
    """linear(gelu(x)): (..., C) to (..., D)."""
    return GeluLinear.apply(x, linear.weight, linear.bias)


def linear_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of linear(x) with respect to x, weight and bias, in the dtype of `grad`."""
    rows = grad.flatten(0, -2)
    return grad @ weight.to(grad.dtype), rows.T @ x.flatten(0, -2).to(grad.dtype), rows.sum(dim=0)


class NormLinear(torch.autograd.Function):
    """See `norm_linear`."""

    @staticmethod
    def forward(ctx, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor, eps: float):
        wide = x.to(torch.promote_types(x.dtype, norm_weight.dtype))
        normed, mean, rstd = torch.native_layer_norm(wide, x.shape[-1:], norm_weight, norm_bias, eps)
        ctx.eps = eps
        ctx.save_for_backward(x, mean, rstd, norm_weight, norm_bias, weight)
        return F.linear(normed, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, mean, rstd, norm_weight, norm_bias, weight = ctx.saved_tensors
        wide, shape = x.to(torch.promote_types(x.dtype, norm_weight.dtype)), x.shape[-1:]
        normed = torch.native_layer_norm(wide, shape, norm_weight, norm_bias, ctx.eps)[0]
        grad_normed, *of_linear = linear_backward(grad, normed, weight)
        grad_x, *of_norm = torch.ops.aten.native_layer_norm_backward(
            grad_normed.to(wide.dtype), wide, shape, mean, rstd, norm_weight, norm_bias, [True, True, True]
        )
        return grad_x, *of_norm, *of_linear, None


class GeluLinear(torch.autograd.Function):
    """See `gelu_linear`."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor):
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_gelu, *of_linear = linear_backward(grad, F.gelu(x), weight)
        return torch.ops.aten.gelu_backward(grad_gelu, x), *of_linear
