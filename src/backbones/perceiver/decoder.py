"""Perceiver IO (Jaegle et al. 2021, arXiv 2107.14795): outputs of any size and meaning, read from the latents by queries."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import ByteArray, DataSpec, UserError
from datamodules.core.checks import check_counts

from ..base import real_inputs
from .attention import MLP
from .fused_linear import norm_linear
from .perceiver import Perceiver, truncated_normal


class Decode(nn.Module):
    """Cross-attention from queries (B, O, Q), one row for each output, to latents (B, N, D) (section 3.2).

    There are many queries and few latents, so unlike in `CrossAttend` keys and values are computed.

    Args:
        query_dim: channels of the queries and outputs, Q.
        latent_dim: channels of the latents, D; queries, keys and values are as wide.
        heads: attention heads.
        widening: hidden width of the MLP over its input width.
    """

    def __init__(self, query_dim: int, latent_dim: int, heads: int, widening: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_queries = nn.LayerNorm(query_dim)
        self.norm_latents = nn.LayerNorm(latent_dim)
        self.query = nn.Linear(query_dim, latent_dim)
        self.key_value = nn.Linear(latent_dim, 2 * latent_dim)
        self.out = nn.Linear(latent_dim, query_dim)
        self.mlp = MLP(query_dim, widening)

    def forward(self, queries: Tensor, latents: Tensor) -> Tensor:
        query = norm_linear(queries, self.norm_queries, self.query).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        both = norm_linear(latents, self.norm_latents, self.key_value).unflatten(-1, (2, self.heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
        read = F.scaled_dot_product_attention(query, key, value)
        outputs = queries + self.out(read.transpose(1, 2).flatten(2))
        return outputs + self.mlp(outputs)


class PerceiverIO(Perceiver):
    """A Perceiver whose latents are read by queries: a learned one for labels, or one for each element of a modality.

    Args:
        data_spec: spec of the data, any number of modalities.
        outputs: the modality whose positions, mapped to Q channels, are the queries: features are then (B, M, Q), one row for
            each of its elements. None for a single learned query and features (B, 1, Q), for classification.
        query_dim: channels of queries and features, Q.
        decode_heads: attention heads of the decoder.
        **options: those of Perceiver; `initialisation` is for the encoder alone.

    Raises:
        UserError: if an option does not fit the others or the data.
    """

    def __init__(
        self,
        data_spec: DataSpec,
        outputs: str | None = None,
        query_dim: int = 256,
        decode_heads: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(data_spec, **options)
        check_counts(query_dim=query_dim, decode_heads=decode_heads)
        if self.num_features % decode_heads:
            raise UserError(
                f"latent_dim {self.num_features} does not divide by decode_heads {decode_heads}: change one"
            )
        if outputs is not None and outputs not in data_spec.modalities:
            raise UserError(f"outputs is {outputs!r}, the data have {list(data_spec.modalities)}: name one of them")
        self.outputs = outputs
        self.decode = Decode(query_dim, self.num_features, decode_heads, widening=1)
        self.num_features = query_dim
        if outputs is None:
            self.query = truncated_normal(1, query_dim)
        else:
            self.embed = nn.Linear(data_spec.modalities[outputs].position_channels, query_dim)

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Byte arrays of the data spec's modalities to the outputs of all queries: (B, M, Q), or (B, 1, Q) for labels."""
        latents = super().forward(inputs)
        if self.outputs is None:
            queries = self.query
        else:
            positions = real_inputs(self.data_spec, inputs)[self.outputs].positions
            queries = self.embed(positions.to(latents.dtype))
        return self.decode(queries.expand(len(latents), -1, -1), latents)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules that FSDP shards one by one."""
        return [*super().blocks, self.decode]
