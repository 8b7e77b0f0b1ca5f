"""The two attention blocks of the Perceiver: cross-attention to a byte array and self-attention of the latents."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fused_linear import gelu_linear, norm_linear
from .reading import ReadPlan, Segment, read_elements


class MLP(nn.Module):
    """LayerNorm, linear, GELU, linear: follows every attention layer (Perceiver, appendix E)."""

    def __init__(self, dim: int, widening: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, widening * dim)
        self.down = nn.Linear(widening * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return gelu_linear(norm_linear(x, self.norm, self.up), self.down)


class CrossAttend(nn.Module):
    """Cross-attention from latents (B, N, D) to a byte array (B, M, C) (Perceiver, section 3.2).

    Q, K and V are as wide as the byte array. K and V are never computed. The elements pass through one LayerNorm,
    x = g x^ + b, and linear maps. There are far fewer latents than elements (N << M), so the maps are applied to the
    latents instead, with the same result:
        score of latent n and element m:  q_n . (Wk x_m + bk) = (g Wk' q_n) . x^_m + a term that cancels in the softmax
        output of latent n:               sum_m p_nm (Wv x_m + bv) = Wv (g sum_m p_nm x^_m + b) + bv
    Consecutive maps (Wq and Wk', Wv and Wo) are multiplied in the cheaper order.

    Args:
        latent_dim: channels of the latents, D.
        input_dim: channels of the elements, C.
        heads: attention heads.
        widening: hidden width of the MLP over its input width.
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

    def forward(self, latents: Tensor, segments: list[Segment], plan: ReadPlan) -> Tensor:
        """Attend to all elements and apply the MLP.

        Args:
            latents: (B, N, D).
            segments: the elements of all modalities, prepared once for all cross-attends.
            plan: how they are processed.
        """
        queries = self.project_queries(latents)
        read = read_elements(queries.flatten(1, 2), segments, plan).unflatten(1, queries.shape[1:3])
        latents = latents + self.project_outputs(read)
        return latents + self.mlp(latents)

    def project_queries(self, latents: Tensor) -> Tensor:
        """g Wk' q / sqrt(d), whose products with x^ are the scores: (B, N, D) to (B, h, N, C)."""
        rows = self.norm_latents(latents).flatten(0, 1)  # (B N, D)
        key_weight = self.key.weight * (self.norm_inputs.weight * (self.query.out_features // self.heads) ** -0.5)
        # bk cancels in the softmax; it gets a zero gradient because DDP waits for a missing one
        zero = 0 * self.key.bias.sum()
        queries = []
        for head in range(self.heads):
            wq, bq, wk = (self.head_rows(w, head) for w in (self.query.weight, self.query.bias, key_weight))
            queries.append(chained_matmul(rows, wq.T, wk) + (bq @ wk + zero))
        return torch.stack(queries, dim=1).unflatten(0, (len(latents), -1)).transpose(1, 2)

    def project_outputs(self, read: Tensor) -> Tensor:
        """Wo (Wv (g read + b) + bv) + bo, where `read` is the weighted mean of x^: (B, h, N, C) to (B, N, D)."""
        bias = self.norm_inputs.bias
        outputs = F.linear(F.linear(bias, self.value.weight, self.value.bias), self.out.weight, self.out.bias)
        value_weight = self.value.weight * self.norm_inputs.weight
        for head in range(self.heads):
            wv, wo = self.head_rows(value_weight, head), self.head_rows(self.out.weight.T, head)
            outputs = outputs + chained_matmul(read[:, head].flatten(0, 1), wv.T, wo)
        return outputs.unflatten(0, (len(read), -1))

    def head_rows(self, weight: Tensor, head: int) -> Tensor:
        """The rows of a weight matrix that belong to one head."""
        depth = len(weight) // self.heads
        return weight[head * depth : (head + 1) * depth]


def chained_matmul(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`rows @ first @ second`, multiplied in the cheaper order. torch.linalg.multi_dot ignores autocast on CPU."""
    (n, d), (w, c) = rows.shape, second.shape
    if n * w * (d + c) <= d * c * (w + n):
        return rows @ first @ second
    return rows @ (first @ second)


class SelfAttend(nn.Module):
    """Self-attention of latents (B, N, D): one block of the latent transformer (Perceiver, section 3.2).

    Args:
        dim: channels of the latents, D.
        heads: attention heads.
        widening: hidden width of the MLP over its input width.
    """

    def __init__(self, dim: int, heads: int, widening: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp = MLP(dim, widening)

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents + self.attend(latents)
        return latents + self.mlp(latents)

    def attend(self, latents: Tensor) -> Tensor:
        """What the attention adds to the latents."""
        split = norm_linear(latents, self.norm, self.query_key_value).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
        read = F.scaled_dot_product_attention(query, key, value)
        return self.out(read.transpose(1, 2).flatten(2))
