"""Our Perceiver against the other installed implementations (`pip install .[peers]`), at equal work; parts of its step.

Equal work means the same elements, latents, iterations, heads and widths, MLPs with a widening factor of 1, float32 and no
dropout. Neither package has options for all of it: the gated MLPs of perceiver-pytorch (widening 4) are replaced by plain
ones, and the layers of transformers, whose own model has one cross-attend, are stacked as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import prod

import pandas as pd
import torch
from timm.optim import Lamb
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datamodules import ByteArray, DataSpec, ModalitySpec
from datamodules.core.positions import axis_features, fourier_channels, grid_features

from ..backbones import Perceiver
from ..backbones.perceiver.attention import SelfAttend
from ..backbones.perceiver.reading import read_elements
from . import measure
from .measure import PRECISIONS, alternate, forward_step, peak_bytes, save, training_step

GENERAL, PRODUCT = "ours, without axes", "a matrix product"
PRODUCTS = 4  # products in one timing


@dataclass(frozen=True)
class Shape:
    """A network and its input.

    Args:
        batch: examples per batch.
        modalities: for each modality its grid and channels.
        bands: frequencies per axis of the positions' Fourier features.
        num_latents: N.
        latent_dim: D.
        cross_attends: number of iterations.
        self_attends: latent self-attends per iteration.
        shared: whether the iterations share their weights.
    """

    batch: int
    modalities: dict[str, tuple[tuple[int, ...], int]]
    bands: int
    num_latents: int
    latent_dim: int
    cross_attends: int
    self_attends: int
    shared: bool = True

    @property
    def spec(self) -> DataSpec:
        modalities = {
            name: ModalitySpec(channels, fourier_channels(len(grid), self.bands), prod(grid), grid, len(grid))
            for name, (grid, channels) in self.modalities.items()
        }
        return DataSpec(modalities, "single_label", ("any",))

    def inputs(self, separable: bool = True) -> dict[str, ByteArray]:
        """Random values at Fourier positions, which may be read along the axes of their grids, or not."""
        arrays = {}
        for name, (grid, channels) in self.modalities.items():
            axes = axis_features(grid, self.bands)
            values = torch.randn(self.batch, prod(grid), channels)
            arrays[name] = ByteArray(values, grid_features(axes, grid), grid, axes=axes if separable else None)
        return arrays

    @property
    def elements(self) -> int:
        return sum(modality.elements for modality in self.spec.modalities.values())

    @property
    def channels(self) -> int:
        """Channels of the joined byte array, with at least four for the modality vector if there are several."""
        widths = [modality.channels + modality.position_channels for modality in self.spec.modalities.values()]
        return max(widths) + (4 if len(widths) > 1 else 0)

    def weight_sets(self) -> tuple[list[int], list[int]]:
        if not self.shared:
            return list(range(self.cross_attends)), list(range(self.cross_attends))
        return [0] + [1] * (self.cross_attends - 1), [0] * self.cross_attends


Modalities = dict[str, tuple[tuple[int, ...], int]]
IMAGENET: Modalities = {"image": ((224, 224), 3)}
AUDIOSET: Modalities = {"audio": ((480,), 128), "video": ((16, 28, 28), 384)}
SHAPES = {
    "tiny": Shape(2, {"image": ((16, 16), 3)}, 16, 16, 32, 2, 1),  # measures nothing: tries the benchmark
    "small": Shape(32, {"image": ((28, 28), 1)}, 16, 64, 128, 2, 2),
    "audioset": Shape(1, AUDIOSET, 64, 512, 1024, 2, 8, shared=False),
    "imagenet": Shape(1, IMAGENET, 64, 512, 1024, 8, 6),
    "imagenet_2": Shape(2, IMAGENET, 64, 512, 1024, 8, 6),
}


def make_ours(shape: Shape, checkpointing: bool = False) -> Perceiver:
    torch.manual_seed(0)
    cross, latent = shape.weight_sets()
    return Perceiver(
        shape.spec, shape.num_latents, shape.latent_dim, shape.cross_attends, shape.self_attends,
        cross_weights=cross, latent_weights=latent, checkpointing=checkpointing,
    )  # fmt: skip


def ours(shape: Shape, checkpointing: bool = False, separable: bool = True) -> tuple[nn.Module, partial[Tensor]]:
    """Returns the model and its forward pass on a random input."""
    model = make_ours(shape, checkpointing)
    return model, partial(model, shape.inputs(separable))


def plain_mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))


def perceiver_pytorch(shape: Shape) -> tuple[nn.Module, partial[Tensor]]:
    from perceiver_pytorch import Perceiver as Theirs
    from perceiver_pytorch.perceiver_pytorch import FeedForward

    torch.manual_seed(0)
    model = Theirs(
        num_freq_bands=1, max_freq=1.0, fourier_encode_data=False, input_axis=1, input_channels=shape.channels,
        depth=shape.cross_attends, self_per_cross_attn=shape.self_attends, weight_tie_layers=shape.shared,
        num_latents=shape.num_latents, latent_dim=shape.latent_dim, cross_heads=1, latent_heads=8,
        cross_dim_head=shape.channels, latent_dim_head=shape.latent_dim // 8, final_classifier_head=False,
    )  # fmt: skip
    for module in list(model.modules()):
        if isinstance(module, FeedForward):
            module.net = plain_mlp(shape.latent_dim)
    elements = torch.randn(shape.batch, shape.elements, shape.channels)
    return model, partial(model, elements)


class TransformersPerceiver(nn.Module):
    """The PerceiverLayers of transformers, stacked as an iterative Perceiver."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from transformers import PerceiverConfig
        from transformers.models.perceiver.modeling_perceiver import PerceiverLayer

        config = PerceiverConfig(attention_probs_dropout_prob=0.0)
        layer = partial(PerceiverLayer, config, q_dim=shape.latent_dim, widening_factor=1)
        cross = partial(
            layer, is_cross_attention=True, qk_channels=shape.channels, v_channels=shape.channels, num_heads=1,
            kv_dim=shape.channels, use_query_residual=True,
        )  # fmt: skip
        wide = shape.latent_dim
        latent = partial(layer, qk_channels=wide, v_channels=wide, num_heads=8, kv_dim=wide)
        self.cross_sets, self.latent_sets = shape.weight_sets()
        self.latents = nn.Parameter(torch.randn(shape.num_latents, wide) * 0.02)
        self.cross = nn.ModuleList(cross() for _ in set(self.cross_sets))
        self.blocks = nn.ModuleList(
            nn.ModuleList(latent() for _ in range(shape.self_attends)) for _ in set(self.latent_sets)
        )

    def forward(self, elements: Tensor) -> Tensor:
        x = self.latents.expand(len(elements), -1, -1)
        for cross_set, latent_set in zip(self.cross_sets, self.latent_sets, strict=True):
            x = self.cross[cross_set](x, inputs=elements)[0]
            for block in self.blocks[latent_set]:  # type: ignore[not-iterable]
                x = block(x)[0]
        return x


def transformers(shape: Shape) -> tuple[nn.Module, partial[Tensor]]:
    torch.manual_seed(0)
    model = TransformersPerceiver(shape)
    return model, partial(model, torch.randn(shape.batch, shape.elements, shape.channels))


PEERS = {"perceiver_pytorch": perceiver_pytorch, "transformers": transformers}


def implementations() -> dict[str, Callable[[Shape], tuple[nn.Module, partial[Tensor]]]]:
    """Our model and those of the other installed packages."""
    return {"ours": ours, **{name: make for name, make in PEERS.items() if find_spec(name)}}


def defined_flops(shape: Shape) -> int:
    """FLOPs of a training step by definition: three times those of a forward pass that reads every channel."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        make_ours(shape).requires_grad_(False)(shape.inputs(separable=False))
    return 3 * counter.get_total_flops()


def executed_flops(make: Callable[[Shape], tuple[nn.Module, partial[Tensor]]], shape: Shape) -> int:
    """FLOPs of the matrix products that a training step executes, recomputed ones included, counted without computing."""

    def in_place_product(total, left, right, **options) -> int:
        """Of torch.baddbmm_ on these shapes, which the counter does not know."""
        return 2 * prod(left) * right[-1]

    in_place = {torch.ops.aten.baddbmm_: in_place_product}
    with torch.device("meta"), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        training_step(make(shape)[1])
    return counter.get_total_flops()


def matrix_product(shape: Shape) -> Callable[[], object]:
    """The largest product of the latents with a weight, four times: what the machine reaches at best at this shape."""
    rows, dim = shape.batch * shape.num_latents, shape.latent_dim
    dtype = PRECISIONS[measure.precision]
    left, right, out = (torch.randn(n, dim).to(dtype) for n in (rows, dim, rows))
    return lambda: [torch.mm(left, right, out=out) for _ in range(PRODUCTS)]


def make_memory_step(make: Callable[..., tuple[nn.Module, partial[Tensor]]], *args) -> Callable[[], None]:
    """For `peak_bytes`, which then excludes parameters, gradients and input."""
    return partial(training_step, make(*args)[1], hold_gradients=True)


def step_parts(shape: Shape) -> dict[str, Callable[[], object]]:
    """The parts of a training step of ours, each as often as in a step, forward and backward; and the whole step."""
    model = make_ours(shape)
    forward = partial(model, shape.inputs())
    latents = torch.randn(shape.batch, shape.num_latents, shape.latent_dim)
    segments, plan = model.segments(shape.inputs())
    queries = torch.randn(shape.batch, model.rows, model.channels) / model.channels
    blocks = shape.cross_attends * shape.self_attends
    block = SelfAttend(shape.latent_dim, heads=8, widening=1)

    def times(count: int, function: Callable[[Tensor], Tensor], given: Tensor) -> Callable[[], None]:
        def step() -> None:
            for _ in range(count):
                function(given.requires_grad_()).square().mean().backward()

        return step

    def optimise() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    training_step(forward)
    optimizer = Lamb(model.parameters(), lr=1e-6)
    return {
        "step": lambda: (training_step(forward), optimise()),
        "reads": times(shape.cross_attends, lambda rows: read_elements(rows, segments, plan), queries),
        "self-attention": times(blocks, block.attend, latents),
        "MLPs": times(blocks + shape.cross_attends, block.mlp, latents),
        "clipping and LAMB": optimise,
    }


def run(shapes: list[str] | None = None, rounds: int = 3) -> pd.DataFrame:
    """Median seconds of forward and forward + backward, peak memory, parameters, and ratios to the best peer.

    A second file has the parts of our training step.
    """
    rows: list[dict] = []
    parts: list[dict] = []
    for name in shapes or [each for each in SHAPES if each != "tiny"]:
        shape = SHAPES[name]
        makers = {"ours": ours, GENERAL: partial(ours, separable=False), **implementations()}
        models = {kind: make(shape) for kind, make in makers.items()}
        seconds = {}
        for part, step in (("forward", forward_step), ("forward_backward", training_step)):
            cases = {kind: partial(step, forward) for kind, (_, forward) in models.items()}
            seconds[part] = alternate({**cases, PRODUCT: matrix_product(shape)}, rounds, f"{name}, {part}")
        product = 2 * PRODUCTS * shape.batch * shape.num_latents * shape.latent_dim**2
        limit = product / min(times[PRODUCT] for times in seconds.values())  # FLOP/s
        parameters = {kind: sum(p.numel() for p in model.parameters()) for kind, (model, _) in models.items()}
        del models, cases
        defined = defined_flops(shape)
        flops = {kind: executed_flops(make, shape) for kind, make in makers.items()}
        memory = {kind: peak_bytes(make_memory_step, make, shape) for kind, make in makers.items()}
        memory["ours, checkpointed"] = peak_bytes(make_memory_step, ours, shape, True)
        peers = [kind for kind in PEERS if kind in parameters]
        for kind in memory:
            row: dict = {"shape": name, "implementation": kind, "batch": shape.batch, "elements": shape.elements}
            row |= {
                "channels": shape.channels,
                "latents": f"{shape.num_latents}x{shape.latent_dim}",
                "dtype": str(PRECISIONS[measure.precision]).removeprefix("torch."),
            }
            row |= {"parameters": parameters.get(kind), "peak_mib": memory[kind] / 2**20}
            row |= {f"{part}_s": times.get(kind) for part, times in seconds.items()}
            if kind in parameters:
                step = seconds["forward_backward"][kind]
                row |= {"model_gflops_per_s": defined / step / 1e9, "executed_gflops": flops[kind] / 1e9}
                row |= {"product_gflops_per_s": limit / 1e9, "share_of_product_limit": flops[kind] / step / limit}
            if peers:
                row["memory_ratio"] = memory[kind] / min(memory[peer] for peer in peers)
                if kind in parameters:
                    row |= {f"{part}_ratio": s[kind] / min(s[p] for p in peers) for part, s in seconds.items()}
            rows.append(row)
        save(rows, "perceiver", finished=False)  # large shapes take minutes
        found = alternate(step_parts(shape), rounds, f"{name}, parts")
        whole = found.pop("step")
        found["the rest"] = whole - sum(found.values())  # projections of the cross-attends, preparation of elements
        parts += [{"shape": name, "part": p, "seconds": s, "share": s / whole} for p, s in found.items()]
    save(parts, "perceiver_parts")
    return save(rows, "perceiver")
