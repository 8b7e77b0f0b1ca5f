"""The two attention blocks of the Perceiver: latents reading bytes, and latents reading each other."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.backbones.read import Elements, read_elements


class MLP(nn.Module):
    """LayerNorm, linear, GELU, linear: what follows every attend (Perceiver, appendix E)."""

    def __init__(self, dim: int, widening: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, widening * dim)
        self.down = nn.Linear(widening * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


class CrossAttend(nn.Module):
    """Latents (B, N, D) read a byte array (B, M, C); Q, K and V are as wide as the byte array (Perceiver, section 3.2).

    K and V of all M elements are never made. Elements are read by linear maps after one LayerNorm, x = g x^ + b, and
    latents are few (N << M), so the maps move to the latents' side, with the same result:
        score of latent n and element m:  q_n . (Wk x_m + bk) = (g Wk' q_n) . x^_m + a term that softmax drops
        what latent n reads:              sum_m p_nm (Wv x_m + bv) = Wv (g sum_m p_nm x^_m + b) + bv
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
        gain, bias = self.norm_inputs.weight, self.norm_inputs.bias
        heads = (self.heads, -1)
        query = self.query(self.norm_latents(latents)).unflatten(-1, heads)  # (B, N, h, d)
        key_map = self.key.weight.unflatten(0, heads)  # (h, d, C)
        value_map = self.value.weight.unflatten(0, heads)
        asked = torch.einsum("bnhd,hdc->bhnc", query, key_map) * (gain * query.shape[-1] ** -0.5)
        read = read_elements(asked.flatten(1, 2), segments, chunk).unflatten(1, (self.heads, -1))
        values = torch.einsum("bhnc,hdc->bnhd", read * gain + bias, value_map).flatten(2) + self.value.bias
        latents = latents + self.out(values)
        return latents + self.mlp(latents)


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
        split = self.query_key_value(self.norm(latents)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
        read = F.scaled_dot_product_attention(query, key, value)
        latents = latents + self.out(read.transpose(1, 2).flatten(2))
        return latents + self.mlp(latents)
