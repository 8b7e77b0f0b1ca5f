"""Exact attention of few queries to many elements without storing keys, values or the N x M scores.

The normalised elements x^ are both key and value (see CrossAttend). They are read chunk by chunk (see `elements` and
`grid_elements`). The softmax is accumulated over chunks (Milakov & Gimelshein 2018) and over modalities, and the backward
pass recomputes the chunks and their scores. Scores are kept to base 2: 2^x takes a third of the time of e^x on a CPU.

The values are data and usually need no gradient. Learned positions and the modality vector need only some columns of it:
with G the gradient of x^, the backward pass of the LayerNorm uses, for each element, these columns of G, mean(G) and
mean(G x^), and the two means follow from the chunk's N x m scores. Gradients of the values are computed on request, for
saliency maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from datamodules import ByteArray
from datamodules.core.positions import outer_sum

from ..fastest import fastest
from .elements import EPSILON, LOG2_E, Elements, chunk_slices, concat_channels
from .grid_elements import (
    GridElements,
    grid_factors,
    joint_moments,
    leading_axes,
    moments,
    outer_moments,
    read_with_kernel,
)

MOST_KERNEL_CHANNELS = 15  # of the values, in `grid_read_triton`
KINDS = {"any": Elements, "grid": GridElements}
TENSORS = {kind: [f.name for f in fields(elements) if f.name != "start"] for kind, elements in KINDS.items()}
Segment = Elements | GridElements


@dataclass(frozen=True)
class ReadPlan:
    """How elements are processed.

    Attributes:
        examples: number of examples at a time.
        chunk: number of elements at a time.
        store: whether x^ is stored for all cross-attends or recomputed in each, where it is needed.
        dtype: of x^.
    """

    examples: int
    chunk: int
    store: bool
    dtype: torch.dtype


def plan_read(
    batch: int, elements: int, rows: int, channels: int, dtype: torch.dtype, device: torch.device
) -> ReadPlan:
    """Choose the chunks and whether to store x^. Measured on 2 CPU cores (2 MiB of L2 each).

    A chunk has about 2^19 scores: at the ImageNet shape, forward + backward took 10.7 s with 2^18 and 2^19, and 11.1 to
    11.6 s with 2^20 and 2^22; at small shapes (B=32, M=784, N=64) there was no difference. Recomputing x^ in each of
    eight cross-attends took 7 % more time, storing it 50 MiB of 1.1 GiB. It is stored up to 64 MiB per example in float32.
    """
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    examples = min(batch, max(1, 2**19 // (rows * elements)))
    return ReadPlan(examples, max(256, 2**19 // (examples * rows)), elements * channels <= 2**24, dtype)


def is_separable(array: ByteArray, vector: Tensor | None = None) -> bool:
    """Whether elements are read along the axes of their grid, the one place that decides it.

    Their positions must be a sum over two axes or more. On a CPU this costs a pair as much as some 20 channels more than the
    values: equal at 28 x 28 with 18 channels of positions and at 4 x 7 x 7 with 64 of values, twice as fast with 66. On a
    GPU it is for the kernel alone, which takes few channels and no gradients but the queries': with general products every
    chunk would pass through memory several times.
    """
    if array.axes is None or len(array.grid or ()) < 2:
        return False
    _, elements, channels = array.values.shape
    if array.values.device.type == "cuda":
        plain = vector is None and not array.values.requires_grad and not torch.compiler.is_compiling()
        return plain and channels <= MOST_KERNEL_CHANNELS and find_spec("triton") is not None
    return elements >= 256 and array.axes.shape[-1] >= 24 + channels / 4


@torch.no_grad()
def prepare_elements(
    values: Tensor, positions: Tensor, vector: Tensor | None, mask: Tensor | None, plan: ReadPlan
) -> Elements:
    """What all cross-attends share: the LayerNorm's statistics and, if the plan stores it, x^. See `Elements`."""
    made = []
    for part in chunk_slices(values.shape[1], plan.chunk):
        x = concat_channels(values[:, part], positions[..., part, :], vector)
        normalised, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
        made.append(
            (mean[..., 0], rstd[..., 0], normalised.to(plan.dtype)) if plan.store else (mean[..., 0], rstd[..., 0])
        )
    mean, rstd, *normalised = made[0] if len(made) == 1 else (torch.cat(p, dim=1) for p in zip(*made, strict=True))
    return Elements(values, positions, vector, mask, mean, rstd, normalised[0] if plan.store else None)


@torch.no_grad()
def prepare_grid(array: ByteArray, vector: Tensor | None, mask: Tensor | None) -> GridElements:
    """What all cross-attends share of a byte array in the order of its grid, (B, M) masked. See `GridElements`."""
    if array.axes is None or array.grid is None:
        raise ValueError("the byte array has no axes")
    values = array.values.to(torch.promote_types(array.values.dtype, torch.float32))
    tables, leading = array.axes.to(values.dtype).split(array.grid), leading_axes(array.grid)
    lead, trail = outer_sum(tables[:leading]), outer_sum(tables[leading:])
    parts = [moments(values), outer_moments(lead, trail)] + ([] if vector is None else [moments(vector)])
    mean, rstd = joint_moments(parts)
    factors = grid_factors(values, mean, rstd, len(lead))
    return GridElements(array.values, vector, mask, mean, rstd, lead, trail, factors)


def prepare_on_gpu(array: ByteArray, mask: Tensor | None, plan: ReadPlan, rows: int) -> Segment:
    """A separable byte array's elements, for the kernel or for general products: whichever is faster for `rows` queries."""

    def make(way: str) -> Segment:
        if way == "the Triton kernel":
            return prepare_grid(array, None, mask)
        return prepare_elements(array.values, array.positions, None, mask, plan)

    def make_ways() -> dict[str, Callable[[], list[Tensor]]]:
        width = array.values.shape[-1] + array.positions.shape[-1]
        queries = torch.randn(len(array.values), rows, width, device=array.values.device, dtype=plan.dtype)
        queries = (queries / width**0.5).requires_grad_()

        def step(way: str) -> list[Tensor]:
            with torch.enable_grad():
                read = read_elements(queries, [make(way)], plan)
                return [read, *torch.autograd.grad(read.float().square().sum(), queries)]

        return {way: partial(step, way) for way in ("general products", "the Triton kernel")}

    key = ("read", array.values.shape, array.positions.shape, rows, plan.dtype, array.values.device, mask is None)
    return make(fastest(key, make_ways, 1e-3 if plan.dtype == torch.float32 else 5e-2))


def read_elements(queries: Tensor, segments: list[Segment], plan: ReadPlan) -> Tensor:
    """softmax(queries x^') x^ over the elements of all segments.

    Args:
        queries: (B, R, C), rows of all heads, scaled.
        segments: the elements of all modalities.
        plan: how many examples and elements to process at a time.

    Returns:
        (B, R, C); zeros for a row whose elements are all masked.
    """
    if queries.device.type == "cuda" and isinstance(segments[0], GridElements):
        return read_with_kernel(queries, segments[0]).to(queries.dtype)
    kinds = tuple("grid" if isinstance(segment, GridElements) else "any" for segment in segments)
    flat = [getattr(s, name) for s, kind in zip(segments, kinds, strict=True) for name in TENSORS[kind]]
    return ReadElements.apply(queries, (plan.examples, plan.chunk), kinds, *flat)


def attention_weights(queries: Tensor, segments: list[Segment]) -> Tensor:
    """Attention weights over the elements of all segments: queries (B, h, N, C) to (B, h, N, M)."""
    rows, scores = queries.flatten(1, 2), []
    zero = rows.new_zeros(rows.shape[:2], dtype=torch.promote_types(rows.dtype, torch.float32))
    for segment in segments:
        for _, chunk in segment.chunks(segment.values.shape[1], rows.dtype):
            scores.append(mask_chunk(chunk.scores(chunk.tables(rows, 1.0), zero), chunk.mask, float("-inf")))
    return torch.cat(scores, dim=1).softmax(dim=1).transpose(1, 2).unflatten(1, queries.shape[1:3])


def segments_from_flat(kinds: tuple[str, ...], flat: tuple) -> list[Segment]:
    """Rebuild the segments from the flat list of their tensors that an autograd function takes."""
    segments, at = [], 0
    for kind in kinds:
        count = len(TENSORS[kind])
        segments.append(KINDS[kind](*flat[at : at + count]))
        at += count
    return segments


def mask_chunk(scores: Tensor, mask: Tensor | None, value: float) -> Tensor:
    """Fills scores (B, m, R) where mask (B, m) is False, in place."""
    return scores if mask is None else scores.masked_fill_(~mask[..., None], value)


def read_segment(segment: Segment, rows: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """One segment: the read (B, R, C) and the total (B, R) of weights 2^(score - highest), and highest (B, R)."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    highest = rows.new_full(rows.shape[:2], float("-inf"), dtype=wide)
    zero, total = torch.zeros_like(highest), torch.zeros_like(highest)
    sums = segment.zero_sums(rows, wide)
    tables = segment.tables(rows, LOG2_E)
    for _, elements in segment.chunks(chunk, rows.dtype):
        scores = mask_chunk(elements.scores(tables, zero), elements.mask, float("-inf"))
        higher = torch.maximum(highest, scores.amax(dim=1))
        if elements.mask is not None:
            higher = higher.clamp(min=torch.finfo(wide).min)  # keeps differences finite if all are masked
        weights = scores.sub_(higher[:, None]).exp2_()
        shrink = (highest - higher).exp2_()
        for kept in sums:
            kept.mul_(shrink[:, None])
        total = total.mul_(shrink).add_(elements.add(sums, weights))
        highest = higher
    return segment.read(sums), total, highest


def merge(reads: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The segments' softmaxes as one: the mean read (B, R, C), and log2 of the total (B, R)."""
    highest = torch.stack([own for _, _, own in reads]).amax(dim=0)
    shrinks = [(own - highest).exp2() for _, _, own in reads]
    total = torch.stack([own * shrink for (_, own, _), shrink in zip(reads, shrinks, strict=True)]).sum(dim=0)
    total = total.where(total > 0, 1)
    read = torch.stack([own * shrink[..., None] for (own, _, _), shrink in zip(reads, shrinks, strict=True)]).sum(dim=0)
    return read / total[..., None], highest + total.log2()


class ReadElements(torch.autograd.Function):
    """Chunked attention with recomputation; see the module's docstring."""

    @staticmethod
    def forward(ctx, queries: Tensor, sizes: tuple[int, int], kinds: tuple[str, ...], *flat) -> Tensor:
        segments = segments_from_flat(kinds, flat)
        found = []
        device = queries.device.type
        with torch.autocast("cpu" if device == "meta" else device, enabled=False):  # there is none for meta
            for part in chunk_slices(len(queries), sizes[0]):
                reads = [read_segment(segment.examples(part), queries[part], sizes[1]) for segment in segments]
                found.append(merge(reads))
        read, log_total = (torch.cat(parts) for parts in zip(*found, strict=True))
        ctx.sizes, ctx.kinds = sizes, kinds
        ctx.save_for_backward(queries, read, log_total, *flat)
        # torch.compile returns zero gradients for an output that is also saved
        return read.to(queries.dtype, copy=torch.compiler.is_compiling())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        queries, read, log_total, *flat = ctx.saved_tensors
        grad = grad.to(queries.dtype)
        inner = (grad.to(read.dtype) * read).sum(dim=-1)
        grad_queries = torch.zeros_like(read)
        grads: list[Tensor | None] = []
        for segment, kind in zip(segments_from_flat(ctx.kinds, tuple(flat)), ctx.kinds, strict=True):
            names, first = TENSORS[kind], 3 + len(grads)
            asked = [name for name, needs in zip(names, ctx.needs_input_grad[first:], strict=False) if needs]
            learned = {name: torch.zeros_like(getattr(segment, name), dtype=read.dtype) for name in asked}
            for part in chunk_slices(len(queries), ctx.sizes[0]):
                grad_queries[part] += backward_segment(
                    segment.examples(part), queries[part], grad[part], log_total[part], inner[part], ctx.sizes[1],
                    {name: g[part] if g.dim() == 3 else g for name, g in learned.items()},
                )  # fmt: skip
            grads += [learned.get(name) for name in names]
        return grad_queries.to(queries.dtype), None, None, *grads


def backward_segment(
    segment: Segment,
    rows: Tensor,
    grad: Tensor,
    log_total: Tensor,
    inner: Tensor,
    chunk: int,
    learned: dict[str, Tensor],
) -> Tensor:
    """The gradient of the rows (B, R, C) through one segment; adds those of learned tensors to `learned`."""
    sums = segment.zero_sums(rows, log_total.dtype)
    tables, grad_tables = segment.tables(rows, LOG2_E), segment.tables(grad, 1.0)
    for part, elements in segment.chunks(chunk, rows.dtype):
        scores = elements.scores(tables, -log_total)
        # only the learned tensors need the scores again
        weights = mask_chunk(scores.exp2() if learned else scores.exp2_(), elements.mask, 0.0)
        grad_scores = elements.scores(grad_tables, -inner).mul_(weights)
        if learned:
            add_learned(learned, part, elements, rows, grad, scores, weights, grad_scores, log_total, inner)
        elements.add(sums, grad_scores)
    return segment.read(sums)


def add_learned(
    learned: dict[str, Tensor], part: slice, elements: Segment, rows: Tensor, grad: Tensor, scores: Tensor, weights: Tensor,
    grad_scores: Tensor, log_total: Tensor, inner: Tensor,
) -> None:  # fmt: skip
    """Adds a chunk's gradients of values, positions or the modality vector: G = weights grad + grad_scores rows, then the
    backward pass of the LayerNorm. Scores and weights are (B, m, R), the scores log2 of the weights."""
    wide = scores.dtype
    rows, grad = rows.to(wide), grad.to(wide)
    # sum over rows of the natural score x grad_score + weight x (its gradient, grad_score / weight + inner)
    plus_one = (scores + log_total[:, None]).mul_(1 / LOG2_E).add_(1)
    along_x = plus_one.mul_(grad_scores).addcmul_(weights, inner[:, None]).sum(dim=2, keepdim=True)

    def of_columns(of_grad: Tensor, of_rows: Tensor) -> Tensor:
        return weights @ of_grad + grad_scores @ of_rows

    rstd, mean = elements.rstd[..., None], elements.mean[..., None]
    mean_g = of_columns(grad.mean(dim=-1, keepdim=True), rows.mean(dim=-1, keepdim=True))
    slope = along_x.mul_(rstd).div_(rows.shape[-1])  # grad_x = (G - mean_g - (x - mean) slope) rstd
    for name, total in learned.items():
        columns = elements.columns[name]
        if (
            name == "vector" and elements.vector is not None
        ):  # all elements share it, so G is summed over them before it is multiplied
            of_grad, of_rows = (rstd.transpose(1, 2) @ w for w in (weights, grad_scores))  # (B, 1, R)
            total += (of_grad @ grad[..., columns] + of_rows @ rows[..., columns]).sum(dim=(0, 1))
            total += ((mean * slope - mean_g) * rstd).sum() - elements.vector.to(wide) * (slope * rstd).sum()
            continue
        g = of_columns(grad[..., columns], rows[..., columns])
        grad_x = (g - mean_g - (getattr(elements, name) - mean).mul_(slope)).mul_(rstd)
        if total.dim() == 2:  # positions that all examples share
            total[part] += grad_x.sum(dim=0)
        else:
            total[:, part] += grad_x
