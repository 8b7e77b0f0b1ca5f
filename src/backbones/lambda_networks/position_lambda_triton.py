"""Position lambdas on 2-D grids in Triton kernels: lambdas, scores and shifted tables are never in memory.

    y[n,h,v] = sum over k of  q[n,h,k] lambda[n,v,k],   lambda[n,v,k] = sum over u, d of  V[n+d,v,u] E[k,u,d]

The lambdas of a tile are one matrix product, whose rows (n, v) are gathered from the values and whose inner index is
j = (u, d). They meet the queries before they leave the registers. Sums are float32 whatever the inputs are.
`TRITON_INTERPRET=1` runs the kernels on a CPU, which the tests do.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS, DEPTH, INNER, WARPS = 8, 16, 32, 4  # of a tile: queries n, channels v, and inner indices j at a time
CHUNKS, CHUNK_PIXELS = 64, 4  # parts of the sum over pixels in the gradient of the table, and pixels of its tiles
PRECISION = tl.constexpr("tf32x3")  # float32 to about 2^-22, on tensor cores


def forward(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    """Same as `position_lambda.position_lambdas`, on 2-D grids."""
    queries, table, values = (x.contiguous() for x in (queries, table, values))
    batch, height, width, heads, _ = queries.shape
    depth = values.shape[3]
    output = queries.new_empty(batch, height, width, heads, depth)
    grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(depth, DEPTH), batch)
    forward_kernel[grid](queries, table, values, output, *sizes(queries, table, values), **options(queries, table))
    return output


def backward(grad: Tensor, queries: Tensor, table: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, table and values."""
    grad, queries, table, values = (x.contiguous() for x in (grad, queries, table, values))
    batch, height, width, _, keys = queries.shape
    rows, columns, depth, intra = values.shape[1:]
    tiles, pixels, integers = triton.cdiv(depth, DEPTH), batch * height * width, sizes(queries, table, values)
    constants = options(queries, table)
    wide = {"dtype": torch.float32, "device": queries.device}

    of_queries = torch.empty(tiles, *queries.shape, **wide)
    grid = (triton.cdiv(height * width, PIXELS), tiles, batch)
    queries_kernel[grid](grad, table, values, of_queries, batch, *integers, **constants)
    of_values = torch.empty_like(values, dtype=torch.float32)
    grid = (triton.cdiv(rows * columns, PIXELS), tiles, batch * intra)
    values_kernel[grid](queries, table, grad, of_values, *integers, **constants)
    steps = triton.cdiv(pixels, CHUNKS * CHUNK_PIXELS)
    of_table = torch.empty(triton.cdiv(pixels, steps * CHUNK_PIXELS), keys, constants["J"], **wide)
    grid = (triton.cdiv(constants["J"], INNER), len(of_table))
    constants |= {"BN": CHUNK_PIXELS, "STEPS": steps}
    table_kernel[grid](queries, values, grad, of_table, batch, *integers, **constants)
    found = of_queries.sum(dim=0), of_table.sum(dim=0).view(table.shape), of_values
    a, b, c = (x.to(like.dtype) for x, like in zip(found, (queries, table, values), strict=True))
    return a, b, c


def sizes(queries: Tensor, table: Tensor, values: Tensor) -> tuple[int, ...]:
    """The integers that all kernels take."""
    rows, columns, depth, intra = values.shape[1:]
    return depth, queries.shape[1], queries.shape[2], rows, columns, intra, *table.shape[2:], queries.shape[4]


def options(queries: Tensor, table: Tensor) -> dict[str, int]:
    """What kernels are compiled for."""
    heads, keys = queries.shape[3:]
    padded = max(16, triton.next_power_of_2(keys))
    inner = table[0].numel()
    return {"H": heads, "KP": padded, "BN": PIXELS, "BV": DEPTH, "BJ": INNER, "J": inner, "num_warps": WARPS}


@triton.jit
def gather_values(values, b, ns, vs, js, in_j, depth, width, rows, columns, intra, r_rows, r_columns, real):
    """V[v, u, n + d]: (pixels, channels, inner indices), 0 outside of the context."""
    u, dy, dx = js // (r_rows * r_columns), js // r_columns % r_rows - r_rows // 2, js % r_columns - r_columns // 2
    y, x = ns[:, None] // width + dy[None, :], ns[:, None] % width + dx[None, :]
    inside = in_j[None, :] & (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    at = (b[:, None, None] * rows + y[:, None, :]) * columns + x[:, None, :]
    at = (at * depth + vs[None, :, None]) * intra + u[None, None, :]
    return tl.load(values + at, mask=inside[:, None, :] & real[:, :, None], other=0.0).to(tl.float32)


@triton.jit
def lambdas(
    table, values, b, ns, vs, ks, real, depth, width, rows, columns, intra, r_rows, r_columns, keys,
    KP: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr, BJ: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """The lambdas of some pixels and channels: (BN BV, KP)."""
    found = tl.zeros((BN * BV, KP), tl.float32)
    for start in range(0, J, BJ):
        js = start + tl.arange(0, BJ)
        in_j = js < J
        v = gather_values(values, b, ns, vs, js, in_j, depth, width, rows, columns, intra, r_rows, r_columns, real)
        e = tl.load(table + ks[None, :] * J + js[:, None], mask=in_j[:, None] & (ks < keys)[None, :], other=0.0)
        found += tl.dot(tl.reshape(v, (BN * BV, BJ)), e.to(tl.float32), input_precision=PRECISION)
    return found


@triton.jit
def forward_kernel(
    queries, table, values, output, depth, height, width, rows, columns, intra, r_rows, r_columns, keys,
    H: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr, BJ: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    b, pixels = tl.program_id(2), height * width
    ns, ks = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, KP)
    vs = tl.program_id(1) * BV + tl.arange(0, BV)
    real = (ns < pixels)[:, None] & (vs < depth)[None, :]
    found = lambdas(
        table, values, b + ns * 0, ns, vs, ks, real, depth, width, rows, columns, intra, r_rows, r_columns, keys,
        KP, BN, BV, BJ, J,
    )  # fmt: skip
    found = tl.reshape(found, (BN, BV, KP))
    for h in tl.static_range(H):
        at = ((b * pixels + ns[:, None]) * H + h) * keys + ks[None, :]
        q = tl.load(queries + at, mask=(ns < pixels)[:, None] & (ks < keys)[None, :], other=0.0).to(tl.float32)
        y = tl.sum(found * q[:, None, :], axis=2)
        tl.store(output + ((b * pixels + ns[:, None]) * H + h) * depth + vs[None, :], y, mask=real)


@triton.jit
def queries_kernel(
    grad, table, values, output, batch, depth, height, width, rows, columns, intra, r_rows, r_columns, keys,
    H: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr, BJ: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    b, pixels, part = tl.program_id(2), height * width, tl.program_id(1)
    ns, ks, vs = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, KP), part * BV + tl.arange(0, BV)
    real = (ns < pixels)[:, None] & (vs < depth)[None, :]
    found = lambdas(
        table, values, b + ns * 0, ns, vs, ks, real, depth, width, rows, columns, intra, r_rows, r_columns, keys,
        KP, BN, BV, BJ, J,
    )  # fmt: skip
    found = tl.reshape(found, (BN, BV, KP))
    for h in tl.static_range(H):
        at = ((b * pixels + ns[:, None]) * H + h) * depth + vs[None, :]
        g = tl.load(grad + at, mask=real, other=0.0).to(tl.float32)
        q = tl.sum(found * g[:, :, None], axis=1)
        at = (((part * batch + b) * pixels + ns[:, None]) * H + h) * keys + ks[None, :]
        tl.store(output + at, q, mask=(ns < pixels)[:, None] & (ks < keys)[None, :])


@triton.jit
def values_kernel(
    queries, table, grad, output, depth, height, width, rows, columns, intra: tl.constexpr, r_rows, r_columns, keys,
    H: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr, BJ: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    # scores first, which is the cheaper order here: (q E) grad
    b, u, pixels, reach = tl.program_id(2) // intra, tl.program_id(2) % intra, height * width, r_rows * r_columns
    ms, ks = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, KP)
    vs = tl.program_id(1) * BV + tl.arange(0, BV)
    found = tl.zeros((BN, BV), tl.float32)
    for d in range(J // intra):
        y = ms // columns - (d // r_columns - r_rows // 2)
        x = ms % columns - (d % r_columns - r_columns // 2)
        inside = (ms < rows * columns) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        ns = y * width + x
        e = tl.load(table + (ks * intra + u) * reach + d, mask=ks < keys, other=0.0).to(tl.float32)
        for h in tl.static_range(H):
            at = ((b * pixels + ns[:, None]) * H + h) * keys + ks[None, :]
            q = tl.load(queries + at, mask=inside[:, None] & (ks < keys)[None, :], other=0.0).to(tl.float32)
            at = ((b * pixels + ns[:, None]) * H + h) * depth + vs[None, :]
            g = tl.load(grad + at, mask=inside[:, None] & (vs < depth)[None, :], other=0.0).to(tl.float32)
            found += tl.sum(q * e[None, :], axis=1)[:, None] * g
    at = ((b * rows * columns + ms[:, None]) * depth + vs[None, :]) * intra + u
    tl.store(output + at, found, mask=(ms < rows * columns)[:, None] & (vs < depth)[None, :])


@triton.jit
def table_kernel(
    queries, values, grad, output, batch, depth: tl.constexpr, height, width, rows, columns, intra, r_rows, r_columns,
    keys,
    H: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr, BJ: tl.constexpr, J: tl.constexpr,
    STEPS: tl.constexpr,
):  # fmt: skip
    pixels, ks = height * width, tl.arange(0, KP)
    js = tl.program_id(0) * BJ + tl.arange(0, BJ)
    found = tl.zeros((BJ, KP), tl.float32)
    for step in range(STEPS):
        place = (tl.program_id(1) * STEPS + step) * BN + tl.arange(0, BN)
        in_n, b, ns = place < batch * pixels, place // pixels, place % pixels
        for start in range(0, depth, BV):
            vs = start + tl.arange(0, BV)
            real = in_n[:, None] & (vs < depth)[None, :]
            of_lambdas = tl.zeros((BN, BV, KP), tl.float32)
            for h in tl.static_range(H):
                at = ((b[:, None] * pixels + ns[:, None]) * H + h) * keys + ks[None, :]
                q = tl.load(queries + at, mask=in_n[:, None] & (ks < keys)[None, :], other=0.0).to(tl.float32)
                at = ((b[:, None] * pixels + ns[:, None]) * H + h) * depth + vs[None, :]
                g = tl.load(grad + at, mask=real, other=0.0).to(tl.float32)
                of_lambdas += g[:, :, None] * q[:, None, :]
            v = gather_values(
                values, b, ns, vs, js, js < J, depth, width, rows, columns, intra, r_rows, r_columns, real
            )
            v = tl.trans(tl.reshape(v, (BN * BV, BJ)))
            found += tl.dot(v, tl.reshape(of_lambdas, (BN * BV, KP)), input_precision=PRECISION)
    at = (tl.program_id(1) * keys + ks[None, :]) * J + js[:, None]
    tl.store(output + at, found, mask=(js < J)[:, None] & (ks < keys)[None, :])
