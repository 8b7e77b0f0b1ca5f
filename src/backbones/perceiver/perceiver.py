"""The iterative Perceiver (Jaegle et al. 2021, arXiv 2103.03206)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from datamodules import ByteArray, DataSpec, UserError
from datamodules.core.checks import check_counts, check_range

from ..base import Backbone, real_inputs
from .attention import CrossAttend, SelfAttend
from .reading import (
    ReadPlan,
    Segment,
    attention_weights,
    is_separable,
    plan_read,
    prepare_elements,
    prepare_grid,
    prepare_on_gpu,
)

DEEPEST = 1000  # blocks
LEARNED_POSITION_CHANNELS = 128  # appendix D
TRUNCATED_STD = 0.87962566103423978  # of a normal distribution of standard deviation 1, truncated at 2
MODALITY_CHANNELS = 4  # of the learned vector of the widest modality, as for AudioSet's video (section 4.2)


class Perceiver(Backbone):
    """Latents that attend to a byte array repeatedly, with a latent transformer after each cross-attend.

    Args:
        data_spec: spec of the data, any number of modalities.
        num_latents: number of latents, N.
        latent_dim: channels of a latent, D.
        cross_attends: number of iterations, each one cross-attend and one latent transformer.
        self_attends_per_block: self-attention blocks of a latent transformer.
        cross_heads: attention heads of a cross-attend.
        self_heads: attention heads of a self-attention block.
        widening: hidden width of the MLPs, as a multiple of their input width.
        cross_weights: index of the weight set that each iteration's cross-attend uses. [0, 1, 1, 1] is the paper's
            sharing and the default, [0, 1, 2, 3] shares nothing. None at an iteration leaves its cross-attend out, as
            in the appendix's ablations (all cross-attends at the start, or fewer than latent transformers).
        latent_weights: the same for the latent transformers; [0, 0, 0, 0] is the paper's sharing and the default.
        positions: `fourier` uses the positions of the byte array, `learned` replaces them by 128 learned channels per
            element.
        modality_dropout: for each modality, the share of training examples in which it is hidden, 0 to 1;
            None hides nothing.
        checkpointing: save only each block's input for the backward pass and recompute the rest: less memory, more time.
        initialisation: of the linear maps: `torch`, as torch's, or `published`, as in the released code: weights from a
            normal distribution of variance 1 / inputs, truncated at two standard deviations, and biases of 0.

    Raises:
        UserError: if an option does not fit the others or the data.
    """

    def __init__(
        self,
        data_spec: DataSpec,
        num_latents: int = 512,
        latent_dim: int = 1024,
        cross_attends: int = 8,
        self_attends_per_block: int = 6,
        cross_heads: int = 1,
        self_heads: int = 8,
        widening: int = 1,
        cross_weights: Sequence[int | None] | None = None,
        latent_weights: Sequence[int | None] | None = None,
        positions: Literal["fourier", "learned"] = "fourier",
        modality_dropout: dict[str, float] | None = None,
        checkpointing: bool = False,
        initialisation: Literal["torch", "published"] = "torch",
    ) -> None:
        super().__init__()
        check_counts(num_latents=num_latents, latent_dim=latent_dim, cross_heads=cross_heads, widening=widening)
        check_counts(cross_attends=cross_attends, self_heads=self_heads)
        check_range(0, DEEPEST, self_attends_per_block=self_attends_per_block, cross_attends=cross_attends)
        check_range(0, 1, modality_dropout=modality_dropout)
        if latent_dim % self_heads:
            raise UserError(f"latent_dim {latent_dim} does not divide by self_heads {self_heads}: change one")
        self.data_spec = data_spec
        self.num_features = latent_dim
        self.checkpointing = checkpointing
        self.rows = num_latents * cross_heads  # query rows of one cross-attend
        self.modalities = list(data_spec.modalities)
        self.cross_weights = weight_sets("cross_weights", cross_weights, [0] + [1] * (cross_attends - 1))
        self.latent_weights = weight_sets("latent_weights", latent_weights, [0] * cross_attends)
        self.modality_dropout = modality_dropout or {}
        unknown = set(self.modality_dropout) - set(data_spec.modalities)
        if unknown:
            raise UserError(f"modality_dropout names {sorted(unknown)}, the data have {list(data_spec.modalities)}")
        self.positions = nn.ParameterDict()
        widths = {}
        for name, modality in data_spec.modalities.items():
            widths[name] = modality.channels + modality.position_channels
            if positions == "learned":
                self.positions[name] = truncated_normal(modality.elements, LEARNED_POSITION_CHANNELS)
                widths[name] = modality.channels + LEARNED_POSITION_CHANNELS
        several = len(widths) > 1
        input_dim = max(widths.values()) + (MODALITY_CHANNELS if several else 0)
        check_range(1, input_dim, cross_heads=cross_heads)  # each reads at least one channel
        self.modality_vectors = nn.ParameterDict(
            {name: truncated_normal(input_dim - width) for name, width in widths.items()} if several else {}
        )
        self.latents = truncated_normal(num_latents, latent_dim)
        self.cross = nn.ModuleList(
            CrossAttend(latent_dim, input_dim, cross_heads, widening) for _ in range(count_sets(self.cross_weights))
        )
        self.transformers = nn.ModuleList(
            nn.Sequential(*(SelfAttend(latent_dim, self_heads, widening) for _ in range(self_attends_per_block)))
            for _ in range(count_sets(self.latent_weights))
        )
        if initialisation == "published":
            self.apply(initialise_as_published)
        self.channels = input_dim
        self.num_elements = sum(modality.elements for modality in data_spec.modalities.values())

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Byte arrays of the data spec's modalities to latents (B, N, D)."""
        segments, plan = self.segments(inputs)
        latents = self.latents.expand(len(segments[0].values), -1, -1)
        for cross_attend, transformer in self.iterations():
            if cross_attend is not None:
                latents = self.run(cross_attend, latents, segments, plan)
            for self_attend in transformer or ():
                latents = self.run(self_attend, latents)
        return latents

    @property
    def reads(self) -> int:
        """Number of cross-attends over all iterations."""
        return sum(number is not None for number in self.cross_weights)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules that FSDP shards one by one."""
        return [*self.cross, *(block for transformer in self.transformers for block in transformer.children())]

    def iterations(self) -> Iterator[tuple[Any, Any]]:
        """The cross-attend and the latent transformer of each iteration; None where it has none."""
        for cross_set, latent_set in zip(self.cross_weights, self.latent_weights, strict=True):
            yield (
                None if cross_set is None else self.cross[cross_set],
                None if latent_set is None else self.transformers[latent_set],
            )

    def run(self, block: nn.Module, *args: Any) -> Any:
        """Apply a block, with activation checkpointing if it is enabled."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)  # no block is random
        return block(*args)

    @torch.no_grad()
    def attention_maps(self, inputs: dict[str, ByteArray], iterations: Sequence[int] = (0, -1)) -> dict[str, Tensor]:
        """Cross-attention weights of the chosen iterations.

        Args:
            inputs: byte arrays of the data spec's modalities.
            iterations: indices into the iterations that have a cross-attend.

        Returns:
            For each modality (B, iterations, heads, N, *grid), or (..., M) for sets. Over all modalities a latent's
            weights add up to 1.
        """
        given = {name: replace(array, axes=None) for name, array in inputs.items()}  # elements stay where they are
        segments, plan = self.segments(given)
        latents = self.latents.expand(len(segments[0].values), -1, -1)
        queries: list[Tensor] = []
        for cross_attend, transformer in self.iterations():
            if cross_attend is not None:
                queries.append(cross_attend.project_queries(latents))
                latents = cross_attend(latents, segments, plan)
            latents = latents if transformer is None else transformer(latents)
        weights = torch.stack([attention_weights(queries[i % len(queries)], segments) for i in iterations], dim=1)
        parts = weights.split([s.values.shape[1] for s in segments], dim=-1)
        grids = [inputs[name].grid for name in self.modalities]
        return {
            name: part if grid is None else part.unflatten(-1, grid)
            for name, part, grid in zip(self.modalities, parts, grids, strict=True)
        }

    def segments(self, inputs: dict[str, ByteArray]) -> tuple[list[Segment], ReadPlan]:
        """The elements of all modalities, prepared for all cross-attends, and how they are processed."""
        inputs = real_inputs(self.data_spec, inputs)
        first = next(iter(inputs.values())).values
        plan = plan_read(len(first), self.num_elements, self.rows, self.channels, first.dtype, first.device)
        return [self.elements(name, inputs[name], plan) for name in self.modalities], plan

    def elements(self, name: str, array: ByteArray, plan: ReadPlan) -> Segment:
        """A modality's elements: values, positions (the byte array's or learned) and, with several modalities, the
        learned vector that pads each modality to the same width (section 4.2)."""
        vector = self.modality_vectors[name] if name in self.modality_vectors else None
        if name not in self.positions and is_separable(array, vector):
            array = array.restore()  # attention does not depend on the order
            mask = self.mask_of(name, array)
            if array.values.device.type == "cuda":
                return prepare_on_gpu(array, mask, plan, self.rows)
            return prepare_grid(array, vector, mask)
        positions = self.positions[name] if name in self.positions else array.positions
        return prepare_elements(array.values, positions, vector, self.mask_of(name, array), plan)

    def mask_of(self, name: str, byte_array: ByteArray) -> Tensor | None:
        """The byte array's mask, combined with modality dropout during training."""
        share = self.modality_dropout.get(name, 0.0)
        if not self.training or share == 0:
            return byte_array.mask
        batch, elements = byte_array.values.shape[:2]
        kept = (torch.rand(batch, 1, device=byte_array.values.device) >= share).expand(batch, elements)
        return kept if byte_array.mask is None else kept & byte_array.mask

    def receptive_field(self) -> int:
        """Number of elements that a unit of the first layer sees: all of them (table 2)."""
        return self.num_elements


def truncated_normal(*shape: int) -> nn.Parameter:
    """A parameter drawn from a normal distribution of standard deviation 0.02, truncated at 2 (appendix)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02, a=-2.0, b=2.0))


def initialise_as_published(module: nn.Module) -> None:
    """A linear map as in the released code (google-deepmind/deepmind-research, perceiver/perceiver.py: variance scaling)."""
    if isinstance(module, nn.Linear):
        std = module.in_features**-0.5 / TRUNCATED_STD
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(module.bias)


def weight_sets(option: str, chosen: Sequence[int | None] | None, default: list[int]) -> list[int | None]:
    """The chosen weight sets, or the default, checked: one entry per iteration, numbered without gaps."""
    sets: list[int | None] = list(default if chosen is None else chosen)
    if len(sets) != len(default):
        raise UserError(f"{option} {sets} has {len(sets)} entries for {len(default)} cross_attends: give one for each")
    used = {number for number in sets if number is not None}
    if not used:
        raise UserError(f"{option} {sets} names no weight set: number them 0, 1, 2, ...")
    if used != set(range(len(used))):
        raise UserError(f"{option} {sets} leaves out a number: number the weight sets 0, 1, 2, ...")
    return sets


def count_sets(sets: list[int | None]) -> int:
    return len(set(sets) - {None})
