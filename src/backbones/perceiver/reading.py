"""Exact attention of few queries to many elements without storing keys, values or the N x M scores.

An element is x = (values, positions, modality vector), normalised by a LayerNorm without affine map: x^ = (x - mean) / std.
x^ is both key and value (see CrossAttend). It is assembled for one chunk of elements at a time, so that it stays in the
cache. The softmax is accumulated over chunks (Milakov & Gimelshein 2018), and the backward pass recomputes the chunks and
their scores. Beyond the batch itself, only mean and std are stored for all elements.

The values are data and usually need no gradient. Learned positions and the modality vector need only some columns of it:
with G the gradient of x^, the backward pass of the LayerNorm uses, for each element, these columns of G, mean(G) and
mean(G x^), and the two means follow from the chunk's N x m scores. Gradients of the values are computed on request, for
saliency maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-5


def concat_channels(values: Tensor, positions: Tensor, vector: Tensor | None, part: slice) -> Tensor:
    """x of the elements in `part`: values (B, M, Cv), positions (M, P) or (B, M, P) and vector (U,) to (B, m, C)."""
    values = values[:, part]
    parts = [values, positions[..., part, :].to(values.dtype).expand(len(values), -1, -1)]
    if vector is not None:
        parts.append(vector.to(values.dtype).expand(*values.shape[:2], -1))
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class Elements:
    """The elements of one modality, prepared for attention.

    Attributes:
        values: (B, M, Cv).
        positions: (M, P) or (B, M, P).
        vector: the modality vector (U,) or None.
        mask: (B, M), True where an element is real, or None.
        mean: (B, M, 1), of the LayerNorm over all C channels.
        rstd: (B, M, 1), one over the LayerNorm's standard deviation.
        normalised: x^ (B, M, C) if it is stored for all cross-attends, else None.
    """

    values: Tensor
    positions: Tensor
    vector: Tensor | None
    mask: Tensor | None
    mean: Tensor
    rstd: Tensor
    normalised: Tensor | None

    def normalised_chunk(self, part: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """x^ (B, m, C) and mask (B, m) of the elements in `part`."""
        mask = None if self.mask is None else self.mask[:, part]
        if self.normalised is not None:
            return self.normalised[:, part], mask
        x = concat_channels(self.values, self.positions, self.vector, part)
        return x.sub_(self.mean[:, part]).mul_(self.rstd[:, part]).to(dtype), mask


@dataclass(frozen=True)
class ReadPlan:
    """How elements are processed.

    Attributes:
        chunk: number of elements at a time.
        store: whether x^ is stored for all cross-attends or recomputed in each.
        dtype: of x^.
    """

    chunk: int
    store: bool
    dtype: torch.dtype


def plan_read(
    batch: int, elements: int, rows: int, channels: int, dtype: torch.dtype, device: torch.device
) -> ReadPlan:
    """Choose the chunk and whether to store x^. Measured on 2 CPU cores (Xeon, 2 MiB of L2 each).

    A chunk has about 2^19 scores: at the ImageNet shape, forward + backward took 10.7 s with 2^18 and 2^19, and 11.1 to
    11.6 s with 2^20 and 2^22; at small shapes (B=32, M=784, N=64) there was no difference. Recomputing x^ in each of
    eight cross-attends took 7 % more time, storing it 50 MiB of 1.1 GiB. It is stored up to 64 MiB per example in float32.
    """
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    return ReadPlan(chunk=max(256, 2**19 // (batch * rows)), store=elements * channels <= 2**24, dtype=dtype)


def chunk_slices(count: int, chunk: int) -> list[slice]:
    """Slices that split `count` elements into equal parts of at most `chunk`."""
    size = -(-count // -(-count // chunk))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


@torch.no_grad()
def prepare_elements(
    values: Tensor, positions: Tensor, vector: Tensor | None, mask: Tensor | None, plan: ReadPlan
) -> Elements:
    """Compute the LayerNorm's statistics and, if the plan stores it, x^. ReadElements computes the gradients."""
    made = []
    for part in chunk_slices(values.shape[1], plan.chunk):
        x = concat_channels(values, positions, vector, part)
        normalised, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
        made.append((mean, rstd, normalised.to(plan.dtype)) if plan.store else (mean, rstd))
    mean, rstd, *normalised = made[0] if len(made) == 1 else (torch.cat(p, dim=1) for p in zip(*made, strict=True))
    return Elements(values, positions, vector, mask, mean, rstd, normalised[0] if plan.store else None)


def read_elements(queries: Tensor, segments: list[Elements], chunk: int) -> Tensor:
    """softmax(queries x^') x^ over the elements of all segments.

    Args:
        queries: (B, R, C), rows of all heads, scaled.
        segments: the elements of all modalities.
        chunk: number of elements to process at a time.

    Returns:
        (B, R, C); zeros for a row whose elements are all masked.
    """
    flat = [t for s in segments for t in (s.values, s.positions, s.vector, s.mask, s.mean, s.rstd, s.normalised)]
    return ReadElements.apply(queries, chunk, *flat)


def attention_weights(queries: Tensor, segments: list[Elements]) -> Tensor:
    """Attention weights over the elements of all segments: queries (B, h, N, C) to (B, h, N, M)."""
    scores = []
    for elements in segments:
        scores.append(attention_scores(queries.flatten(1, 2), *elements.normalised_chunk(slice(None), queries.dtype)))
    return torch.cat(scores, dim=-1).softmax(dim=-1).unflatten(1, queries.shape[1:3])


TENSORS_PER_SEGMENT = 7  # tensors of one Elements


def elements_from_flat(flat: tuple) -> list[Elements]:
    """Rebuild the segments from the flat list of their tensors that an autograd function takes."""
    return [Elements(*flat[i : i + TENSORS_PER_SEGMENT]) for i in range(0, len(flat), TENSORS_PER_SEGMENT)]


def attention_scores(queries: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """queries x^' in at least float32, -inf where masked: (B, R, m)."""
    scores = torch.bmm(queries, x.transpose(1, 2))
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    return scores if mask is None else scores.masked_fill_(~mask[:, None], float("-inf"))


class ReadElements(torch.autograd.Function):
    """Chunked attention with recomputation; see the module's docstring."""

    @staticmethod
    def forward(ctx, queries: Tensor, chunk: int, *flat) -> Tensor:
        batch, rows, channels = queries.shape
        wide = torch.promote_types(queries.dtype, torch.float32)
        highest = queries.new_full((batch, rows, 1), float("-inf"), dtype=wide)
        total = queries.new_zeros((batch, rows, 1), dtype=wide)
        read = queries.new_zeros((batch, rows, channels), dtype=wide)
        for elements in elements_from_flat(flat):
            for part in chunk_slices(elements.values.shape[1], chunk):
                x, mask = elements.normalised_chunk(part, queries.dtype)
                scores = attention_scores(queries, x, mask)
                higher = torch.maximum(highest, scores.amax(dim=-1, keepdim=True))
                if mask is not None:
                    higher = higher.clamp(min=torch.finfo(wide).min)  # keeps differences finite if all are masked
                weights = scores.sub_(higher).exp_()
                shrink = (highest - higher).exp_()
                total = total.mul_(shrink).add_(weights.sum(dim=-1, keepdim=True))
                read = read.mul_(shrink)
                if wide == queries.dtype:
                    read = torch.baddbmm(read, weights, x)
                else:
                    read += torch.bmm(weights.to(queries.dtype), x)
                highest = higher
        seen = total > 0
        total = total.where(seen, 1)
        read = read / total
        ctx.chunk, ctx.wide = chunk, wide
        ctx.save_for_backward(queries, read, highest + total.log(), *flat)
        # a copy, because torch.compile returns zero gradients for an output that is also saved
        return read.to(queries.dtype, copy=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        queries, read, log_total, *flat = ctx.saved_tensors
        chunk, wide, channels = ctx.chunk, ctx.wide, queries.shape[-1]
        grad = grad.to(queries.dtype)
        inner = (grad.to(wide) * read).sum(dim=-1, keepdim=True)
        grad_queries = torch.zeros_like(queries, dtype=wide)
        grads: list[Tensor | None] = [None] * len(flat)
        for number, elements in enumerate(elements_from_flat(tuple(flat))):
            first = 2 + number * TENSORS_PER_SEGMENT  # argument index of this segment's tensors
            needs_values, needs_positions, needs_vector = ctx.needs_input_grad[first : first + 3]
            grad_values = torch.zeros_like(elements.values, dtype=wide) if needs_values else elements.values
            grad_positions = torch.zeros_like(elements.positions, dtype=wide)
            width = 0 if elements.vector is None else len(elements.vector)
            grad_vector = queries.new_zeros(width, dtype=wide)
            ends = elements.values.shape[-1], elements.values.shape[-1] + elements.positions.shape[-1]
            first_learned = 0 if needs_values else ends[0] if needs_positions else ends[1]
            for part in chunk_slices(elements.values.shape[1], chunk):
                x, mask = elements.normalised_chunk(part, queries.dtype)
                scores = attention_scores(queries, x, mask)
                weights = (scores - log_total).exp_()
                grad_weights = torch.bmm(grad, x.transpose(1, 2)).to(wide)
                grad_scores = (grad_weights - inner).mul_(weights)
                if wide == queries.dtype:
                    grad_queries = torch.baddbmm(grad_queries, grad_scores, x)
                else:
                    grad_queries += torch.bmm(grad_scores.to(queries.dtype), x)
                if not (needs_values or needs_positions or needs_vector):
                    continue
                # from G = weights' grad + grad_scores' queries: mean(G x^), mean(G) and the learned columns
                if mask is not None:
                    scores = scores.masked_fill_(~mask[:, None], 0)
                along_x = scores.mul_(grad_scores).addcmul_(weights, grad_weights).sum(dim=1)[..., None] / channels
                columns = slice(first_learned, channels)
                sides = torch.cat([grad.sum(-1, keepdim=True) / channels, grad[..., columns]], dim=-1).to(wide)
                query_sides = torch.cat([queries.sum(-1, keepdim=True) / channels, queries[..., columns]], dim=-1).to(
                    wide
                )
                g = torch.bmm(weights.transpose(1, 2), sides)
                g = g.baddbmm_(grad_scores.transpose(1, 2), query_sides)
                grad_x = (g[..., 1:] - g[..., :1] - x[..., columns] * along_x) * elements.rstd[:, part]
                if needs_vector:
                    grad_vector += grad_x[..., grad_x.shape[-1] - width :].sum(dim=(0, 1))
                if needs_values:
                    grad_values[:, part] = grad_x[..., : ends[0]]
                if needs_positions:
                    of_positions = grad_x[..., ends[0] - first_learned : ends[1] - first_learned]
                    shared = elements.positions.dim() == 2
                    grad_positions[..., part, :] += of_positions.sum(dim=0) if shared else of_positions
            grads[number * TENSORS_PER_SEGMENT] = grad_values if needs_values else None
            grads[number * TENSORS_PER_SEGMENT + 1] = grad_positions if needs_positions else None
            grads[number * TENSORS_PER_SEGMENT + 2] = grad_vector if needs_vector else None
        return grad_queries.to(queries.dtype), None, *grads
