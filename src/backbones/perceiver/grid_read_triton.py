"""The read of a grid in one Triton kernel: neither x^ nor a score is ever in memory (docs/derivations.md).

Scores, weights and sums are float32 whatever the inputs are. `TRITON_INTERPRET=1` runs the kernels on a CPU, which the
tests do.
"""

from __future__ import annotations

from math import log

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS, WARPS = 32, 128, 8  # of a tile: rows that read, cells of the grid; with these no register is spilled
PRECISION = tl.constexpr("tf32x3")  # float32 to about 2^-22, on tensor cores
LN2 = log(2.0)


def read_grid(
    own: Tensor, lead: Tensor, trail: Tensor, values: Tensor, mean: Tensor, rstd: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax over the cells of an L x W grid, and the sums that it weights.

    With the scores s = rstd (own . (values, -mean) + lead[y] + trail[x]) in units of log 2, and weights p = 2^s / sum 2^s.
    Differentiable in own, lead and trail.

    Args:
        own: (B, Cv + 1, R), Cv at most 15: with the mean they are one tile of a matrix product.
        lead: (B, L, R).
        trail: (B, W, R).
        values: (B, L W, Cv), in row-major order.
        mean: (B, L W).
        rstd: (B, L W).
        mask: (B, L W), True where a cell is real, or None.

    Returns:
        sum p rstd (values, -mean) (B, Cv + 1, R); sum over x of p rstd (B, L, R); sum over y of p rstd (B, W, R); and
        log2 of the sum of 2^s (B, R). Zeros, and a very small number, where no cell is real.
    """
    return GridRead.apply(own, lead, trail, values, mean, rstd, mask)


class GridRead(torch.autograd.Function):
    """See `read_grid`."""

    @staticmethod
    def forward(ctx, own, lead, trail, values, mean, rstd, mask):
        own, lead, trail = (x.float().contiguous() for x in (own, lead, trail))
        cells = [x.contiguous() for x in (values, mean.float(), rstd.float())]
        cells.append(rstd if mask is None else mask.to(torch.int8).contiguous())
        batch, channels, rows = own.shape
        height, width = lead.shape[1], trail.shape[1]
        tiles, parts = triton.cdiv(width, COLUMNS), split_rows(batch, rows, height, width, own.device)
        sums = [own.new_empty(tiles, parts, batch, *x) for x in ((rows,), (rows,), (channels, rows))]
        of_lead = [own.new_empty(tiles, batch, height, rows) for _ in range(2)]
        of_trail = own.new_empty(parts, batch, width, rows)
        grid = (triton.cdiv(rows, ROWS), tiles * parts, batch)
        sizes = (batch, rows, height, width, channels - 1, parts)
        steps = triton.cdiv(height, parts)
        options = {
            "HAS_MASK": mask is not None,
            "BR": ROWS,
            "BX": COLUMNS,
            "CP": 16,
            "STEPS": steps,
            "num_warps": WARPS,
        }
        forward_kernel[grid](own, lead, trail, *cells, *sums, *of_lead, of_trail, *sizes, **options)

        highest, total, of_own = sums
        top = highest.amax(dim=(0, 1))
        top = top.masked_fill(top == -torch.inf, 0)  # no cell is real
        shrink = (highest - top).exp2()  # (tiles, parts, B, R)
        total = (total * shrink).sum(dim=(0, 1)).clamp(min=torch.finfo(torch.float32).tiny)
        of_own = (of_own * shrink[..., None, :]).sum(dim=(0, 1)) / total[:, None]
        of_lead = (of_lead[0] * (of_lead[1] - top[:, None]).exp2()).sum(dim=0) / total[:, None]
        by_column = shrink.repeat_interleave(COLUMNS, dim=0)[:width].permute(1, 2, 0, 3)  # (parts, B, W, R)
        of_trail = (of_trail * by_column).sum(dim=0) / total[:, None]
        logsum = top + total.log2()
        ctx.save_for_backward(own, lead, trail, *cells, of_own, of_lead, of_trail, logsum)
        ctx.sizes, ctx.options, ctx.grid = sizes, options, grid
        return of_own, of_lead, of_trail, logsum

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_own, grad_lead, grad_trail, grad_logsum):
        own, lead, trail, *cells, of_own, of_lead, of_trail, logsum = ctx.saved_tensors
        given = [x.float().contiguous() for x in (grad_own, grad_lead, grad_trail)]
        kept = zip(given, (of_own, of_lead, of_trail), strict=True)
        inner = sum(((g * x).sum(dim=1) for g, x in kept), -grad_logsum / LN2).contiguous()
        batch, rows, height, width, channels, parts = ctx.sizes
        tiles = triton.cdiv(width, COLUMNS)
        found_own = own.new_empty(tiles, parts, batch, channels + 1, rows)
        found_lead = own.new_empty(tiles, batch, height, rows)
        found_trail = own.new_empty(parts, batch, width, rows)
        found = (found_own, found_lead, found_trail)
        backward_kernel[ctx.grid](
            own, lead, trail, *cells, *given, logsum, inner, *found, *ctx.sizes, **ctx.options
        )  # fmt: skip
        return found_own.sum(dim=(0, 1)), found_lead.sum(dim=0), found_trail.sum(dim=0), None, None, None, None


def split_rows(batch: int, rows: int, height: int, width: int, device: torch.device) -> int:
    """Parts that the grid's rows are split into, so that each multiprocessor of a GPU has some tiles."""
    programs = batch * triton.cdiv(rows, ROWS) * triton.cdiv(width, COLUMNS)
    wanted = (
        4 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2 * programs
    )
    return max(1, min(height, wanted // programs))


@triton.jit
def load_cells(values, mean, rstd, mask, b, y, xs, channels, height, width, HAS_MASK: tl.constexpr, CP: tl.constexpr):
    """(values, -mean) of a part of a grid's row (BX, CP), its rstd (BX,), and which of its cells are real (BX,)."""
    inside = (xs < width) & (y < height)
    cell = (b * height + y) * width + xs
    cs = tl.arange(0, CP)
    of_values = values + cell[:, None] * channels + cs[None, :]
    f = tl.load(of_values, mask=inside[:, None] & (cs < channels)[None, :], other=0.0).to(tl.float32)
    f = tl.where(cs[None, :] == channels, -tl.load(mean + cell, mask=inside, other=0.0)[:, None], f)
    r = tl.load(rstd + cell, mask=inside, other=0.0)
    if HAS_MASK:
        inside = inside & (tl.load(mask + cell, mask=inside, other=0) != 0)
    return f, r, inside


@triton.jit
def forward_kernel(
    own, lead, trail, values, mean, rstd, mask, out_top, out_total, out_own, out_lead, out_lead_top, out_trail,
    batch, rows, height, width, channels, parts,
    HAS_MASK: tl.constexpr, BR: tl.constexpr, BX: tl.constexpr, CP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    tile, part, b = tl.program_id(1) // parts, tl.program_id(1) % parts, tl.program_id(2)
    rs, xs, cs = tl.program_id(0) * BR + tl.arange(0, BR), tile * BX + tl.arange(0, BX), tl.arange(0, CP)
    in_r, in_x, in_c = rs < rows, xs < width, cs <= channels
    q = tl.load(own + (b * (channels + 1) + cs)[:, None] * rows + rs, mask=in_c[:, None] & in_r, other=0.0)
    t = tl.load(trail + (b * width + xs)[:, None] * rows + rs, mask=in_x[:, None] & in_r, other=0.0)
    top = tl.full((BR,), float("-inf"), tl.float32)
    total = tl.zeros((BR,), tl.float32)
    sum_own = tl.zeros((CP, BR), tl.float32)
    sum_trail = tl.zeros((BX, BR), tl.float32)
    for step in range(STEPS):
        y = part * STEPS + step
        in_y = in_r & (y < height)
        f, r, real = load_cells(values, mean, rstd, mask, b, y, xs, channels, height, width, HAS_MASK, CP)
        line = tl.load(lead + (b * height + y) * rows + rs, mask=in_y, other=0.0)
        s = (tl.dot(f, q, input_precision=PRECISION) + t + line[None, :]) * r[:, None]
        s = tl.where(real[:, None], s, float("-inf"))
        higher = tl.maximum(top, tl.max(s, axis=0))
        safe = tl.where(higher == float("-inf"), 0.0, higher)  # no real cell so far
        shrink = tl.exp2(top - safe)
        w = tl.exp2(s - safe[None, :])
        total = total * shrink + tl.sum(w, axis=0)
        w = w * r[:, None]
        sum_own = sum_own * shrink[None, :] + tl.dot(tl.trans(f), w, input_precision=PRECISION)
        sum_trail = sum_trail * shrink[None, :] + w
        at = ((tile * batch + b) * height + y) * rows + rs
        tl.store(out_lead + at, tl.sum(w, axis=0), mask=in_y)
        tl.store(out_lead_top + at, safe, mask=in_y)
        top = higher
    at = (tile * parts + part) * batch + b
    tl.store(out_top + at * rows + rs, top, mask=in_r)
    tl.store(out_total + at * rows + rs, total, mask=in_r)
    tl.store(out_own + (at * (channels + 1) + cs)[:, None] * rows + rs, sum_own, mask=in_c[:, None] & in_r)
    at = ((part * batch + b) * width + xs)[:, None] * rows + rs
    tl.store(out_trail + at, sum_trail, mask=in_x[:, None] & in_r)


@triton.jit
def backward_kernel(
    own, lead, trail, values, mean, rstd, mask, grad_own, grad_lead, grad_trail, logsum, inner,
    out_own, out_lead, out_trail, batch, rows, height, width, channels, parts,
    HAS_MASK: tl.constexpr, BR: tl.constexpr, BX: tl.constexpr, CP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    tile, part, b = tl.program_id(1) // parts, tl.program_id(1) % parts, tl.program_id(2)
    rs, xs, cs = tl.program_id(0) * BR + tl.arange(0, BR), tile * BX + tl.arange(0, BX), tl.arange(0, CP)
    in_r, in_x, in_c = rs < rows, xs < width, cs <= channels
    of_own = (b * (channels + 1) + cs)[:, None] * rows + rs
    of_trail = (b * width + xs)[:, None] * rows + rs
    q = tl.load(own + of_own, mask=in_c[:, None] & in_r, other=0.0)
    grad_q = tl.load(grad_own + of_own, mask=in_c[:, None] & in_r, other=0.0)
    t = tl.load(trail + of_trail, mask=in_x[:, None] & in_r, other=0.0)
    grad_t = tl.load(grad_trail + of_trail, mask=in_x[:, None] & in_r, other=0.0)
    end = tl.load(logsum + b * rows + rs, mask=in_r, other=0.0)
    mean_grad = tl.load(inner + b * rows + rs, mask=in_r, other=0.0)
    sum_own = tl.zeros((CP, BR), tl.float32)
    sum_trail = tl.zeros((BX, BR), tl.float32)
    for step in range(STEPS):
        y = part * STEPS + step
        in_y = in_r & (y < height)
        f, r, real = load_cells(values, mean, rstd, mask, b, y, xs, channels, height, width, HAS_MASK, CP)
        at = (b * height + y) * rows + rs
        line = tl.load(lead + at, mask=in_y, other=0.0)
        grad_line = tl.load(grad_lead + at, mask=in_y, other=0.0)
        s = (tl.dot(f, q, input_precision=PRECISION) + t + line[None, :]) * r[:, None]
        p = tl.where(real[:, None], tl.exp2(s - end[None, :]), 0.0)
        g = (tl.dot(f, grad_q, input_precision=PRECISION) + grad_t + grad_line[None, :]) * r[:, None]
        d = 0.6931471805599453 * p * (g - mean_grad[None, :]) * r[:, None]
        sum_own += tl.dot(tl.trans(f), d, input_precision=PRECISION)
        sum_trail += d
        tl.store(out_lead + ((tile * batch + b) * height + y) * rows + rs, tl.sum(d, axis=0), mask=in_y)
    at = (tile * parts + part) * batch + b
    tl.store(out_own + (at * (channels + 1) + cs)[:, None] * rows + rs, sum_own, mask=in_c[:, None] & in_r)
    tl.store(out_trail + ((part * batch + b) * width + xs)[:, None] * rows + rs, sum_trail, mask=in_x[:, None] & in_r)
