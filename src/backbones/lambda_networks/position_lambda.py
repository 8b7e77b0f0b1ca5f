"""Position lambdas, computed in whichever of two exact orders is cheaper.

    y[b,n,h,v] = sum over k, u, m of  q[b,n,h,k] E[k,u,m-n] V[b,m,v,u]          (LambdaNetworks, section 2)

`scores_first` multiplies q E first, then V, on any number of axes. `lambdas_first` multiplies E V first, then q, on 2-D
grids, using a Fourier transform over the rows. The first takes O(P^2) multiply-adds for P pixels, the second O(P^1.5).

`position_lambdas` is one operator of torch, so torch.compile takes it whole and FLOP counters know it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from math import prod
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from ..fastest import fastest
from . import lambdas_first, scores_first
from .scores_first import Tiling

# Measured on CPUs: products take longer in short columns, where their matrices are smaller
LAMBDAS_FIRST_COST = 1.2
MIN_BLOCK = 14
KERNEL = "the Triton kernel"
Plan = Tiling | int | str


@torch.library.custom_op("bytebench::position_lambdas", mutates_args=())
def position_lambdas(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """Applies the position lambdas to the queries.

    Args:
        queries: (B, *n, h, k).
        table: (k, u, *r), one embedding per relative position, key minus query, with 0 in the middle; r is odd on every
            axis. Relative positions outside the table are ignored: r = 2 L - 1 covers all pairs on grids up to L, a
            smaller r covers the neighbourhood of each query.
        values: (B, *m, v, u).

    Returns:
        (B, *n, h, v).
    """
    with torch.autocast(queries.device.type, enabled=False):
        return forward(plan_for(queries, table, values), queries, table, values)


def convolved(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """`position_lambdas` as one convolution of torch, for programs without our operator; both grids are one."""
    axes = table.dim() - 2
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    pictures = values.movedim((-2, -1), (1, 2)).flatten(0, 1)  # (B v, u, *n)
    lambdas = convolve(pictures, table, padding=[length // 2 for length in table.shape[2:]])
    lambdas = lambdas.flatten(2).unflatten(0, (len(values), -1))  # (B, v, k, n)
    return torch.einsum("bnhk,bvkn->bnhv", queries.flatten(1, axes), lambdas).view(*queries.shape[:-1], -1)


@torch.library.custom_op("bytebench::position_lambdas_backward", mutates_args=())
def position_lambdas_backward(
    grad: Tensor, queries: Tensor, table: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, table and values."""
    with torch.autocast(queries.device.type, enabled=False):
        found = backward(plan_for(queries, table, values), grad, queries, table, values)
    of_queries, of_table, of_values = (x.to(queries.dtype).contiguous() for x in found)
    return of_queries, of_table, of_values


@position_lambdas.register_fake
def _(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    return queries.new_empty(*queries.shape[:-1], values.shape[-2])


@position_lambdas_backward.register_fake
def _(grad: Tensor, queries: Tensor, table: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return queries.new_empty(queries.shape), table.new_empty(table.shape), values.new_empty(values.shape)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return position_lambdas_backward(grad, *ctx.saved_tensors)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


position_lambdas.register_autograd(_backward, setup_context=_setup_context)


def forward(plan: Plan, queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """`position_lambdas`, computed in one of its ways."""
    if isinstance(plan, Tiling):
        return scores_first.forward(plan, queries, table, values)
    if plan == KERNEL:
        from . import position_lambda_triton

        return position_lambda_triton.forward(queries, table, values)
    wide = torch.promote_types(queries.dtype, torch.float32)
    return lambdas_first.forward(cast("int", plan), *(x.to(wide) for x in (queries, table, values))).to(queries.dtype)


def backward(plan: Plan, grad: Tensor, queries: Tensor, table: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, table and values, computed in one of the ways."""
    if isinstance(plan, Tiling):
        return scores_first.backward(plan, grad, queries, table, values)
    if plan == KERNEL:
        from . import position_lambda_triton

        return position_lambda_triton.backward(grad, queries, table, values)
    wide = torch.promote_types(queries.dtype, torch.float32)
    found = lambdas_first.backward(cast("int", plan), *(x.to(wide) for x in (grad, queries, table, values)))
    a, b, c = (x.to(queries.dtype) for x in found)
    return a, b, c


def plan_for(queries: Tensor, table: Tensor, values: Tensor) -> Plan:
    """The tiles of `scores_first`, the rows of a block of `lambdas_first`, or KERNEL: whichever takes less time."""
    plan = _plan(tuple(queries.shape), tuple(table.shape), tuple(values.shape), queries.device.type)
    if queries.dim() != 5 or queries.device.type != "cuda" or find_spec("triton") is None:
        return plan

    def make_ways() -> dict[str, Callable[[], Sequence[Tensor]]]:
        given = tuple(torch.randn_like(x) for x in (queries, table, values))
        return {
            str(way): lambda way=way: [(y := forward(way, *given)), *backward(way, y, *given)] for way in (plan, KERNEL)
        }

    key = ("position lambdas", queries.shape, table.shape, values.shape, queries.dtype, queries.device)
    tolerance = 1e-3 if queries.dtype == torch.float32 else 5e-2
    return KERNEL if fastest(key, make_ways, tolerance) == KERNEL else plan


@lru_cache(256)
def _plan(queries: tuple, table: tuple, values: tuple, device: str) -> Plan:
    tiling = scores_first.make_tiling(queries, table, values, device)
    if len(queries) != 5 or device != "cpu":  # only measured on CPUs
        return tiling
    height = queries[1]
    blocks = {-(-height // count) for count in range(1, max(1, height // MIN_BLOCK) + 1)}
    block = min(blocks, key=lambda rows: lambdas_first.multiply_adds(queries, table, values, rows))
    cost = LAMBDAS_FIRST_COST * lambdas_first.multiply_adds(queries, table, values, block)
    return block if cost < scores_first.multiply_adds(queries, values, tiling) else tiling


def executed_flops(queries: tuple, table: tuple, values: tuple, *_: Any, **__: Any) -> int:
    """Floating-point operations that `position_lambdas` executes on a CPU for these shapes."""
    plan = _plan(tuple(queries), tuple(table), tuple(values), "cpu")
    if isinstance(plan, Tiling):
        return 2 * scores_first.multiply_adds(queries, values, plan)
    return 2 * lambdas_first.multiply_adds(queries, table, values, cast("int", plan))


@register_flop_formula(torch.ops.bytebench.position_lambdas)
def defined_flops(queries: tuple, table: tuple, values: tuple, *_: Any, **__: Any) -> int:
    """Floating-point operations of the definition: E V for every pair in scope, then q."""
    (batch, *grid, heads, key_depth), (_, *context, depth, intra) = queries, values
    pairs = prod(
        sum(max(0, min(m, i + r // 2 + 1) - max(0, i - r // 2)) for i in range(n))
        for n, m, r in zip(grid, context, table[2:], strict=True)
    )
    return 2 * batch * key_depth * depth * (intra * pairs + heads * prod(grid))


@register_flop_formula(torch.ops.bytebench.position_lambdas_backward)
def defined_flops_backward(grad: tuple, queries: tuple, table: tuple, values: tuple, *_: Any, **__: Any) -> int:
    """Twice the forward pass, as for any product."""
    return 2 * defined_flops(queries, table, values)
