"""Our Perceiver against the other installed implementations (`pip install .[peers]`), at equal work.

Equal work means the same elements, latents, iterations, heads and widths, MLPs with a widening factor of 1, float32 and no
dropout. Neither package has options for all of it: the gated MLPs of perceiver-pytorch (widening 4) are replaced by plain
ones, and the layers of transformers, whose own model has one cross-attend, are stacked as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datamodules import DataSpec, ModalitySpec

from ..backbones import Perceiver
from .measure import alternate, forward_step, peak_bytes, save, training_step


@dataclass(frozen=True)
class Shape:
    """A network and its input.

    Args:
        batch: examples per batch.
        modalities: for each modality (elements, channels, position channels).
        num_latents: N.
        latent_dim: D.
        cross_attends: number of iterations.
        self_attends: latent self-attends per iteration.
        shared: whether the iterations share their weights.
    """

    batch: int
    modalities: dict[str, tuple[int, int, int]]
    num_latents: int
    latent_dim: int
    cross_attends: int
    self_attends: int
    shared: bool = True

    @property
    def spec(self) -> DataSpec:
        modalities = {name: ModalitySpec(c, p, m, None, 1) for name, (m, c, p) in self.modalities.items()}
        return DataSpec(modalities, "single_label", ("any",))

    @property
    def elements(self) -> int:
        return sum(m for m, _, _ in self.modalities.values())

    @property
    def channels(self) -> int:
        """Channels of the joined byte array, with at least four for the modality vector if there are several."""
        return max(c + p for _, c, p in self.modalities.values()) + (4 if len(self.modalities) > 1 else 0)

    def weight_sets(self) -> tuple[list[int], list[int]]:
        if not self.shared:
            return list(range(self.cross_attends)), list(range(self.cross_attends))
        return [0] + [1] * (self.cross_attends - 1), [0] * self.cross_attends


IMAGENET = {"image": (50_176, 3, 258)}
SHAPES = {
    "small": Shape(32, {"image": (784, 1, 66)}, 64, 128, 2, 2),
    "audioset": Shape(1, {"audio": (480, 128, 129), "video": (12_544, 384, 387)}, 512, 1024, 2, 8, shared=False),
    "imagenet": Shape(1, IMAGENET, 512, 1024, 8, 6),
    "imagenet_2": Shape(2, IMAGENET, 512, 1024, 8, 6),
}


def ours(shape: Shape, checkpointing: bool = False) -> tuple[nn.Module, partial[Tensor]]:
    """Returns the model and its forward pass on a random input."""
    torch.manual_seed(0)
    cross, latent = shape.weight_sets()
    model = Perceiver(
        shape.spec, shape.num_latents, shape.latent_dim, shape.cross_attends, shape.self_attends,
        cross_weights=cross, latent_weights=latent, checkpointing=checkpointing,
    )  # fmt: skip
    return model, partial(model, shape.spec.example_inputs(shape.batch))


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


def training_flops(shape: Shape) -> int:
    """FLOPs of a training step: three times those of our forward pass, which never computes keys and values."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model, _ = ours(shape)
        model.requires_grad_(False)(shape.spec.example_inputs(shape.batch, device="meta"))
    return 3 * counter.get_total_flops()


def make_training_step(make: Callable[..., tuple[nn.Module, partial[Tensor]]], *args) -> Callable[[], None]:
    """For `peak_bytes`, which excludes parameters, gradients and input."""
    return partial(training_step, make(*args)[1])


def run(shapes: list[str] | None = None, rounds: int = 3) -> pd.DataFrame:
    """Median seconds of forward and forward + backward, peak memory, parameters, and ratios to the best peer."""
    rows = []
    for name in shapes or SHAPES:
        shape = SHAPES[name]
        models = {kind: make(shape) for kind, make in implementations().items()}
        seconds = {}
        for part, step in (("forward", forward_step), ("forward_backward", training_step)):
            cases = {kind: partial(step, forward) for kind, (_, forward) in models.items()}
            seconds[part] = alternate(cases, rounds, f"{name}, {part}")
        flops = training_flops(shape)
        parameters = {kind: sum(p.numel() for p in model.parameters()) for kind, (model, _) in models.items()}
        del models, cases
        memory = {kind: peak_bytes(make_training_step, make, shape) for kind, make in implementations().items()}
        memory["ours, checkpointed"] = peak_bytes(make_training_step, ours, shape, True)
        peers = [kind for kind in parameters if kind != "ours"]
        for kind in memory:
            row: dict = {"shape": name, "implementation": kind, "batch": shape.batch, "elements": shape.elements}
            row |= {
                "channels": shape.channels,
                "latents": f"{shape.num_latents}x{shape.latent_dim}",
                "dtype": "float32",
            }
            row |= {"parameters": parameters.get(kind), "peak_mib": memory[kind] / 2**20}
            row |= {f"{part}_s": times.get(kind) for part, times in seconds.items()}
            if kind in parameters:
                row["model_gflops_per_s"] = flops / seconds["forward_backward"][kind] / 1e9
            if peers:
                row["memory_ratio"] = memory[kind] / min(memory[peer] for peer in peers)
                if kind in parameters:
                    row |= {f"{part}_ratio": s[kind] / min(s[p] for p in peers) for part, s in seconds.items()}
            rows.append(row)
        save(rows, "perceiver", finished=False)  # large shapes take minutes
    return save(rows, "perceiver")
