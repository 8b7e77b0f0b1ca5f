"""Exact attention of few queries on many elements, without keys, values, a joined byte array or N x M scores.

An element is x = (values, positions, modality vector), read through LayerNorm without affine map, x^ = (x - mean) / std.
x^ is both key and value (see CrossAttend). It is put together for a chunk of elements at a time, used while it lies in
the cache, and dropped; softmax is gathered over chunks (Milakov & Gimelshein 2018); the backward pass makes the chunks
and their scores again. So nothing of size M is kept but what the batch holds anyway, and mean and std.

Measured values take no gradients. What is learned, positions or the modality vector, gets them from few columns: with
G the gradient of x^, the LayerNorm's backward pass needs of each element only G's learned columns, mean(G) and
mean(G x^), and the latter two follow from the chunk's N x m scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-5


def join(values: Tensor, positions: Tensor, vector: Tensor | None, start: int, stop: int) -> Tensor:
    """x of elements start to stop: values (B, M, Cv), positions (M, P) or (B, M, P), vector (U,), to (B, m, C)."""
    values = values[:, start:stop]
    parts = [values, positions[..., start:stop, :].to(values.dtype).expand(len(values), -1, -1)]
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

    def chunk(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """x^ of some elements: (B, m, C)."""
        if self.normalised is not None:
            return self.normalised[:, start:stop]
        x = join(self.values, self.positions, self.vector, start, stop)
        return x.sub_(self.mean[:, start:stop]).mul_(self.rstd[:, start:stop]).to(dtype)


@dataclass(frozen=True)
class Plan:
    """How elements are read: `chunk` at a time; x^ made once for all reads (`store`) or anew for each; its `dtype`."""

    chunk: int
    store: bool
    dtype: torch.dtype


def reading_plan(batch: int, rows: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """The one place where the way of reading is chosen. Both numbers are reasoned, not yet measured.

    A chunk of about 2^20 scores should stay in a CPU's cache. Making x^ anew costs a few passes over C channels where the
    products cost rows * C: it should be lost among them from about 128 rows on; below that x^ is stored.
    """
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    return Plan(chunk=max(256, 2**20 // (batch * rows)), store=rows < 128, dtype=dtype)


@torch.no_grad()
def prepare(values: Tensor, positions: Tensor, vector: Tensor | None, mask: Tensor | None, plan: Plan) -> Elements:
    """The LayerNorm's statistics, and x^ itself where it is to be stored. Gradients are ReadElements' affair."""
    made = []
    for start in range(0, values.shape[1], plan.chunk):
        x = join(values, positions, vector, start, start + plan.chunk)
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
        x = elements.chunk(0, elements.values.shape[1], asked.dtype)
        scores.append(scores_of(asked.flatten(1, 2), x, elements.mask))
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
            count = elements.values.shape[1]
            for start in range(0, count, chunk):
                stop = min(start + chunk, count)
                x = elements.chunk(start, stop, asked.dtype)
                mask = None if elements.mask is None else elements.mask[:, start:stop]
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
            learns_positions, learns_vector = ctx.needs_input_grad[place + 1], ctx.needs_input_grad[place + 2]
            grad_positions = torch.zeros_like(elements.positions, dtype=wide)
            width = 0 if elements.vector is None else len(elements.vector)
            grad_vector = asked.new_zeros(width, dtype=wide)
            first_learned = elements.values.shape[-1] + (0 if learns_positions else elements.positions.shape[-1])
            count = elements.values.shape[1]
            for start in range(0, count, chunk):
                stop = min(start + chunk, count)
                x = elements.chunk(start, stop, asked.dtype)
                mask = None if elements.mask is None else elements.mask[:, start:stop]
                scores = scores_of(asked, x, mask)
                weights = (scores - log_total).exp_()
                grad_weights = torch.bmm(grad, x.transpose(1, 2)).to(wide)
                grad_scores = (grad_weights - inner).mul_(weights)
                if wide == asked.dtype:
                    grad_asked = torch.baddbmm(grad_asked, grad_scores, x)
                else:
                    grad_asked += torch.bmm(grad_scores.to(asked.dtype), x)
                if not (learns_positions or learns_vector):
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
                grad_x = (g[..., 1:] - g[..., :1] - x[..., columns] * along_x) * elements.rstd[:, start:stop]
                if learns_vector:
                    grad_vector += grad_x[..., grad_x.shape[-1] - width :].sum(dim=(0, 1))
                if learns_positions:
                    of_positions = grad_x[..., : elements.positions.shape[-1]]
                    shared = elements.positions.dim() == 2
                    grad_positions[..., start:stop, :] += of_positions.sum(dim=0) if shared else of_positions
            grads[number * FIELDS + 1] = grad_positions if learns_positions else None
            grads[number * FIELDS + 2] = grad_vector if learns_vector else None
        return grad_asked.to(asked.dtype), None, *grads
