"""The two attention blocks of the Perceiver: latents reading bytes, and latents reading each other."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fused_linear import gelu_linear, norm_linear
from .reading import Elements, read_elements


class MLP(nn.Module):
    """LayerNorm, linear, GELU, linear: what follows every attend (Perceiver, appendix E)."""

    def __init__(self, dim: int, widening: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, widening * dim)
        self.down = nn.Linear(widening * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return gelu_linear(norm_linear(x, self.norm, self.up), self.down)


class CrossAttend(nn.Module):
    """Latents (B, N, D) read a byte array (B, M, C); Q, K and V are as wide as the byte array (Perceiver, section 3.2).

    K and V of all M elements are never made. Elements are read by linear maps after one LayerNorm, x = g x^ + b, and
    latents are few (N << M), so the maps move to the latents' side, with the same result:
        score of latent n and element m:  q_n . (Wk x_m + bk) = (g Wk' q_n) . x^_m + a term that softmax drops
        what latent n reads:              sum_m p_nm (Wv x_m + bv) = Wv (g sum_m p_nm x^_m + b) + bv
    There, maps that follow each other (Wq and Wk', Wv and Wo) are multiplied in the cheaper order: maps first where
    there are more rows than latent channels.
    """

    def __init__(self, latent_dim: int, input_dim: int, heads: int, widening: int) -> None:
        super().__init__()
        self.heads = heads
        width = input_dim - input_dim % heads  # each head equally wide
        self.norm_latents = nn.LayerNorm(latent_dim)
        self.norm_inputs = nn.LayerNorm(input_dim)
        self.query = nn.Linear(latent_dim, width)
        self.key = nn.Linear(input_dim, width)
        self.value = nn.Linear(input_dim, width)
        self.out = nn.Linear(width, latent_dim)
        self.mlp = MLP(latent_dim, widening)

    def forward(self, latents: Tensor, segments: list[Elements], chunk: int) -> Tensor:
        """segments: the elements of all modalities, prepared once for all cross-attends, read `chunk` at a time."""
        asked = self.ask(latents)
        read = read_elements(asked.flatten(1, 2), segments, chunk).unflatten(1, asked.shape[1:3])
        latents = latents + self.tell(read)
        return latents + self.mlp(latents)

    def ask(self, latents: Tensor) -> Tensor:
        """g Wk' q, scaled: what is multiplied with x^ to give the scores, (B, h, N, C)."""
        rows = self.norm_latents(latents).flatten(0, 1)  # (B N, D)
        key_weight = self.key.weight * (self.norm_inputs.weight * (self.query.out_features // self.heads) ** -0.5)
        # bk drops out of the softmax; its gradient is zero, not missing, or DDP would wait for it
        nothing = 0 * self.key.bias.sum()
        asked = []
        for head in range(self.heads):
            wq, bq, wk = (self.of_head(w, head) for w in (self.query.weight, self.query.bias, key_weight))
            asked.append(multiply(rows, wq.T, wk) + (bq @ wk + nothing))
        return torch.stack(asked, dim=1).unflatten(0, (len(latents), -1)).transpose(1, 2)

    def tell(self, read: Tensor) -> Tensor:
        """Wo (Wv (g read + b) + bv) + bo: what the latents learn of x^ read by all heads, (B, h, N, C) to (B, N, D)."""
        bias = self.norm_inputs.bias
        told = F.linear(F.linear(bias, self.value.weight, self.value.bias), self.out.weight, self.out.bias)
        value_weight = self.value.weight * self.norm_inputs.weight
        for head in range(self.heads):
            wv, wo = self.of_head(value_weight, head), self.of_head(self.out.weight.T, head)
            told = told + multiply(read[:, head].flatten(0, 1), wv.T, wo)
        return told.unflatten(0, (len(read), -1))

    def of_head(self, weight: Tensor, head: int) -> Tensor:
        """The rows of a map that belong to one head."""
        depth = len(weight) // self.heads
        return weight[head * depth : (head + 1) * depth]


def multiply(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """rows first second, in the order that costs less. torch.linalg.multi_dot does not know autocast on a CPU."""
    (n, d), (w, c) = rows.shape, second.shape
    if n * w * (d + c) <= d * c * (w + n):
        return rows @ first @ second
    return rows @ (first @ second)


class SelfAttend(nn.Module):
    """Latents (B, N, D) read each other: one block of the latent transformer (Perceiver, section 3.2)."""

    def __init__(self, dim: int, heads: int, widening: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp = MLP(dim, widening)

    def forward(self, latents: Tensor) -> Tensor:
        split = norm_linear(latents, self.norm, self.query_key_value).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
        read = F.scaled_dot_product_attention(query, key, value)
        latents = latents + self.out(read.transpose(1, 2).flatten(2))
        return latents + self.mlp(latents)
