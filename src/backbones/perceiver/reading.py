"""Exact attention of few queries on many elements, without keys, values, a joined byte array or N x M scores.

An element is x = (values, positions, modality vector), read through LayerNorm without affine map, x^ = (x - mean) / std.
x^ is both key and value (see CrossAttend). It is put together for a chunk of elements at a time, used while it lies in
the cache, and dropped; softmax is gathered over chunks (Milakov & Gimelshein 2018); the backward pass makes the chunks
and their scores again. So nothing of size M is kept but what the batch holds anyway, and mean and std.

In training, measured values take no gradients. What is learned, positions or the modality vector, gets them from few
columns: with G the gradient of x^, the LayerNorm's backward pass needs of each element only G's learned columns, mean(G)
and mean(G x^), and the latter two follow from the chunk's N x m scores. Values get theirs where they ask for them, for
pictures of what a model looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-5


def join(values: Tensor, positions: Tensor, vector: Tensor | None, span: slice) -> Tensor:
    """x of some elements: values (B, M, Cv), positions (M, P) or (B, M, P), vector (U,), to (B, m, C)."""
    values = values[:, span]
    parts = [values, positions[..., span, :].to(values.dtype).expand(len(values), -1, -1)]
    if vector is not None:
        parts.append(vector.to(values.dtype).expand(*values.shape[:2], -1))
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class Elements:
    """One modality's elements, ready to be read.

    values, positions, vector: see `join`; vector, the modality vector, may be None. mask: (B, M) or None.
    mean, rstd: (B, M, 1), of the LayerNorm over all C channels.
    normalised: x^ (B, M, C), where it was made once for all reads; else None.
    """

    values: Tensor
    positions: Tensor
    vector: Tensor | None
    mask: Tensor | None
    mean: Tensor
    rstd: Tensor
    normalised: Tensor | None

    def chunk(self, span: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """x^ (B, m, C) and mask (B, m) of some elements."""
        mask = None if self.mask is None else self.mask[:, span]
        if self.normalised is not None:
            return self.normalised[:, span], mask
        x = join(self.values, self.positions, self.vector, span)
        return x.sub_(self.mean[:, span]).mul_(self.rstd[:, span]).to(dtype), mask


@dataclass(frozen=True)
class Plan:
    """How elements are read: about `chunk` at a time; x^ made once for all reads (`store`) or anew for each; its `dtype`."""

    chunk: int
    store: bool
    dtype: torch.dtype


def reading_plan(batch: int, elements: int, rows: int, channels: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """The one place where the way of reading is chosen; measured on 2 CPU cores (Xeon, 2 MiB of L2 each).

    A chunk of 2^19 scores: at the ImageNet shape, forward + backward took 10.7 s with 2^18 and 2^19, 11.1 to 11.6 s
    with 2^20 and 2^22; small shapes (B=32, M=784, N=64) did not tell them apart. Making x^ anew for each of eight reads
    cost 7 %, storing it 50 MiB of 1.1 GiB: it is stored up to 64 MiB per example in float32, made anew beyond.
    """
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    return Plan(chunk=max(256, 2**19 // (batch * rows)), store=elements * channels <= 2**24, dtype=dtype)


def spans(count: int, chunk: int) -> list[slice]:
    """Equal parts of `count` elements, none above `chunk`."""
    size = -(-count // -(-count // chunk))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


@torch.no_grad()
def prepare(values: Tensor, positions: Tensor, vector: Tensor | None, mask: Tensor | None, plan: Plan) -> Elements:
    """The LayerNorm's statistics, and x^ itself where it is to be stored. Gradients are ReadElements' affair."""
    made = []
    for span in spans(values.shape[1], plan.chunk):
        x = join(values, positions, vector, span)
        normalised, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
        made.append((mean, rstd, normalised.to(plan.dtype)) if plan.store else (mean, rstd))
    mean, rstd, *normalised = made[0] if len(made) == 1 else (torch.cat(p, dim=1) for p in zip(*made, strict=True))
    return Elements(values, positions, vector, mask, mean, rstd, normalised[0] if plan.store else None)


def read_elements(asked: Tensor, segments: list[Elements], chunk: int) -> Tensor:
    """softmax(asked x^') x^ over the elements of all segments: (B, R, C) to (B, R, C).

    asked: (B, R, C), rows of all heads, scaled. A row whose elements are all masked reads zeros.
    """
    flat = [t for s in segments for t in (s.values, s.positions, s.vector, s.mask, s.mean, s.rstd, s.normalised)]
    return ReadElements.apply(asked, chunk, *flat)


def reading_weights(asked: Tensor, segments: list[Elements]) -> Tensor:
    """The weights themselves, for pictures: asked (B, h, N, C) to (B, h, N, M) over the elements of all segments."""
    scores = []
    for elements in segments:
        scores.append(scores_of(asked.flatten(1, 2), *elements.chunk(slice(None), asked.dtype)))
    return torch.cat(scores, dim=-1).softmax(dim=-1).unflatten(1, asked.shape[1:3])


FIELDS = 7  # tensors of one Elements


def unflatten(flat: tuple) -> list[Elements]:
    return [Elements(*flat[i : i + FIELDS]) for i in range(0, len(flat), FIELDS)]


def scores_of(asked: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """asked x^' in at least float32: (B, R, m), -inf where masked."""
    scores = torch.bmm(asked, x.transpose(1, 2))
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    return scores if mask is None else scores.masked_fill_(~mask[:, None], float("-inf"))


class ReadElements(torch.autograd.Function):
    """See the head of this file."""

    @staticmethod
    def forward(ctx, asked: Tensor, chunk: int, *flat) -> Tensor:
        batch, rows, channels = asked.shape
        wide = torch.promote_types(asked.dtype, torch.float32)
        highest = asked.new_full((batch, rows, 1), float("-inf"), dtype=wide)
        total = asked.new_zeros((batch, rows, 1), dtype=wide)
        read = asked.new_zeros((batch, rows, channels), dtype=wide)
        for elements in unflatten(flat):
            for span in spans(elements.values.shape[1], chunk):
                x, mask = elements.chunk(span, asked.dtype)
                scores = scores_of(asked, x, mask)
                higher = torch.maximum(highest, scores.amax(dim=-1, keepdim=True))
                if mask is not None:
                    higher = higher.clamp(min=torch.finfo(wide).min)  # all masked so far: keep differences finite
                weights = scores.sub_(higher).exp_()
                shrink = (highest - higher).exp_()
                total = total.mul_(shrink).add_(weights.sum(dim=-1, keepdim=True))
                read = read.mul_(shrink)
                if wide == asked.dtype:
                    read = torch.baddbmm(read, weights, x)
                else:
                    read += torch.bmm(weights.to(asked.dtype), x)
                highest = higher
        seen = total > 0
        total = total.where(seen, 1)
        read = read / total
        ctx.chunk, ctx.wide = chunk, wide
        ctx.save_for_backward(asked, read, highest + total.log(), *flat)
        # a copy: torch.compile takes the gradient of an output that is also kept to be zero
        return read.to(asked.dtype, copy=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        asked, read, log_total, *flat = ctx.saved_tensors
        chunk, wide, channels = ctx.chunk, ctx.wide, asked.shape[-1]
        grad = grad.to(asked.dtype)
        inner = (grad.to(wide) * read).sum(dim=-1, keepdim=True)
        grad_asked = torch.zeros_like(asked, dtype=wide)
        grads: list[Tensor | None] = [None] * len(flat)
        for number, elements in enumerate(unflatten(tuple(flat))):
            place = 2 + number * FIELDS  # of this segment's fields among the arguments
            learns_values, learns_positions, learns_vector = ctx.needs_input_grad[place : place + 3]
            grad_values = torch.zeros_like(elements.values, dtype=wide) if learns_values else elements.values
            grad_positions = torch.zeros_like(elements.positions, dtype=wide)
            width = 0 if elements.vector is None else len(elements.vector)
            grad_vector = asked.new_zeros(width, dtype=wide)
            ends = elements.values.shape[-1], elements.values.shape[-1] + elements.positions.shape[-1]
            first_learned = 0 if learns_values else ends[0] if learns_positions else ends[1]
            for span in spans(elements.values.shape[1], chunk):
                x, mask = elements.chunk(span, asked.dtype)
                scores = scores_of(asked, x, mask)
                weights = (scores - log_total).exp_()
                grad_weights = torch.bmm(grad, x.transpose(1, 2)).to(wide)
                grad_scores = (grad_weights - inner).mul_(weights)
                if wide == asked.dtype:
                    grad_asked = torch.baddbmm(grad_asked, grad_scores, x)
                else:
                    grad_asked += torch.bmm(grad_scores.to(asked.dtype), x)
                if not (learns_values or learns_positions or learns_vector):
                    continue
                # G = weights' grad + grad_scores' asked; of it mean(G x^), mean(G) and the learned columns
                if mask is not None:
                    scores = scores.masked_fill_(~mask[:, None], 0)
                along_x = scores.mul_(grad_scores).addcmul_(weights, grad_weights).sum(dim=1)[..., None] / channels
                columns = slice(first_learned, channels)
                sides = torch.cat([grad.sum(-1, keepdim=True) / channels, grad[..., columns]], dim=-1).to(wide)
                asked_sides = torch.cat([asked.sum(-1, keepdim=True) / channels, asked[..., columns]], dim=-1).to(wide)
                g = torch.bmm(weights.transpose(1, 2), sides)
                g = g.baddbmm_(grad_scores.transpose(1, 2), asked_sides)
                grad_x = (g[..., 1:] - g[..., :1] - x[..., columns] * along_x) * elements.rstd[:, span]
                if learns_vector:
                    grad_vector += grad_x[..., grad_x.shape[-1] - width :].sum(dim=(0, 1))
                if learns_values:
                    grad_values[:, span] = grad_x[..., : ends[0]]
                if learns_positions:
                    of_positions = grad_x[..., ends[0] - first_learned : ends[1] - first_learned]
                    shared = elements.positions.dim() == 2
                    grad_positions[..., span, :] += of_positions.sum(dim=0) if shared else of_positions
            grads[number * FIELDS] = grad_values if learns_values else None
            grads[number * FIELDS + 1] = grad_positions if learns_positions else None
            grads[number * FIELDS + 2] = grad_vector if learns_vector else None
        return grad_asked.to(asked.dtype), None, *grads
