"""The papers' baselines, made of timm's models."""

from __future__ import annotations

import math
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError

from .base import Backbone

RESNET_STEM_PIXELS = 49  # of a ResNet's first convolution, 7 x 7 (Perceiver, table 2)


class TimmImageNetwork(Backbone):
    """A network of timm on one modality with a 2-D grid, on its channels or on channels and positions.

    name: timm's name. positions: give the positional features to the network as further channels (`RGB + FF` in the
    Perceiver's table 1). stochastic_depth: share of examples that skip the last block while training, less before.
    """

    prefixes: tuple[str, ...]  # of the names that are taken
    examples: str
    first_layer_pixels: int  # that the first layer's units can see

    def __init__(self, data_spec: DataSpec, name: str, positions: bool = False, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        kind = type(self).__name__
        self.modality, spec = one_image(kind, data_spec)
        self.positions = positions
        channels = spec.channels + (spec.position_channels if positions else 0)
        if not name.startswith(self.prefixes) or not timm.is_model(name):
            raise UserError(f"{kind} name {name!r} is not one of timm's: choose {self.examples}, ...")
        self.network: Any = timm.create_model(
            name,
            in_chans=channels,
            num_classes=0,
            global_pool="",
            drop_path_rate=stochastic_depth,
            **self.options(spec),
        )
        width: Any = self.network.num_features
        self.num_features = width

    def options(self, spec: ModalitySpec) -> dict:
        """Further options of timm's constructor."""
        return {}

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """One image byte array to the last feature map, flattened: (B, h * w, D)."""
        return self.network(unflatten(inputs[self.modality], self.positions)).flatten(2).transpose(1, 2)

    def feature_maps(self, inputs: dict[str, ByteArray]) -> list[Tensor]:
        """Feature maps (B, C, H, W), one per stride: 4, 8, 16 and 32."""
        picture = unflatten(inputs[self.modality], self.positions)
        return self.network.forward_intermediates(picture, indices=4, intermediates_only=True)

    @property
    def blocks(self) -> list[nn.Module]:
        """What is sharded one by one: the parts of what timm has put in sequences."""
        sequences = [child for child in self.network.children() if isinstance(child, nn.Sequential)]
        return [block for sequence in sequences for block in sequence.children()]

    def receptive_field(self) -> int:
        """Pixels that the first layer's units can see."""
        return self.first_layer_pixels


class ResNet(TimmImageNetwork):
    """A ResNet; see TimmImageNetwork."""

    prefixes, examples = ("resnet",), "resnet18, resnet34, resnet50"
    first_layer_pixels = RESNET_STEM_PIXELS

    def __init__(
        self, data_spec: DataSpec, name: str = "resnet50", positions: bool = False, stochastic_depth: float = 0.0
    ) -> None:
        super().__init__(data_spec, name, positions, stochastic_depth)


class EfficientNet(TimmImageNetwork):
    """An EfficientNet, B0 to B7 (timm's efficientnet_b0 ...; tf_efficientnet_b0 ... pads as the published weights do)."""

    prefixes, examples = ("efficientnet_b", "tf_efficientnet_b"), "efficientnet_b0, efficientnet_b1"
    first_layer_pixels = 9

    def __init__(
        self, data_spec: DataSpec, name: str = "efficientnet_b0", positions: bool = False, stochastic_depth: float = 0.0
    ) -> None:
        super().__init__(data_spec, name, positions, stochastic_depth)


class ViT(TimmImageNetwork):
    """A vision transformer; see TimmImageNetwork.

    patch: pixels of a patch's side; the name's own if left out.
    depth: transformer blocks; the name's own if left out.
    """

    prefixes, examples = ("vit_",), "vit_tiny_patch16_224, vit_small_patch16_224, vit_base_patch16_224"

    def __init__(
        self,
        data_spec: DataSpec,
        name: str = "vit_base_patch16_224",
        positions: bool = False,
        stochastic_depth: float = 0.0,
        patch: int | None = None,
        depth: int | None = None,
    ) -> None:
        self.chosen = {"patch_size": patch, "depth": depth}
        super().__init__(data_spec, name, positions, stochastic_depth)
        rows, columns = self.network.patch_embed.patch_size
        self.first_layer_pixels = rows * columns

    def options(self, spec: ModalitySpec) -> dict:
        return {"img_size": spec.grid, **{name: value for name, value in self.chosen.items() if value is not None}}

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """One image byte array to features of the class token and all patches: (B, 1 + patches, D)."""
        return self.network(unflatten(inputs[self.modality], self.positions))

    def feature_maps(self, inputs: dict[str, ByteArray]) -> list[Tensor]:
        return Backbone.feature_maps(self, inputs)  # one grid, of its patches


class Transformer(Backbone):
    """A transformer on all elements of all modalities (Perceiver, section 4.1: on ImageNet down-sampled to 64x64).

    dim, depth, heads: of timm's transformer blocks.
    max_side: 2-D grids longer than this are averaged down to it.
    """

    def __init__(
        self, data_spec: DataSpec, dim: int = 512, depth: int = 8, heads: int = 8, max_side: int | None = 64
    ) -> None:
        super().__init__()
        self.num_features = dim
        self.max_side = max_side
        self.embed = nn.ModuleDict(
            {name: nn.Linear(m.channels + m.position_channels, dim) for name, m in data_spec.modalities.items()}
        )
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        sides = [shrunk(m.grid, max_side) for m in data_spec.modalities.values() if m.grid]
        sets = [m.elements for m in data_spec.modalities.values() if not m.grid]
        self.elements = sum(map(math.prod, sides)) + sum(sets)

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Byte arrays to features of all their elements: (B, M, D)."""
        x = torch.cat([embed(self.shrink(inputs[name]).concat()) for name, embed in self.embed.items()], dim=1)
        masks = [inputs[name].mask for name in self.embed]
        keep = None
        if any(mask is not None for mask in masks):
            sizes = [inputs[name].values.shape[:2] for name in self.embed]
            real = [x.new_ones(s, dtype=torch.bool) if m is None else m for m, s in zip(masks, sizes, strict=True)]
            keep = torch.cat(real, dim=1)[:, None, None, :]
        for block in self.blocks:
            x = block(x, attn_mask=keep)
        return self.norm(x)

    def shrink(self, byte_array: ByteArray) -> ByteArray:
        """A 2-D grid down-sampled to max_side; its positions with it."""
        grid = byte_array.grid
        if grid is None or shrunk(grid, self.max_side) == grid:
            return byte_array
        small = shrunk(grid, self.max_side)

        def down(x: Tensor) -> Tensor:
            picture = x.transpose(-1, -2).unflatten(-1, grid)
            return F.adaptive_avg_pool2d(picture, (small[0], small[1])).flatten(-2).transpose(-1, -2)

        return ByteArray(down(byte_array.values), down(byte_array.positions), small)

    def receptive_field(self) -> int:
        """Elements that the first layer's units can see: all that are left after down-sampling."""
        return self.elements


def shrunk(grid: tuple[int, ...], max_side: int | None) -> tuple[int, ...]:
    return grid if max_side is None or len(grid) != 2 else tuple(min(length, max_side) for length in grid)


def one_image(backbone: str, data_spec: DataSpec) -> tuple[str, ModalitySpec]:
    """The name and spec of the only modality, which must be a 2-D grid."""
    modalities = list(data_spec.modalities.items())
    if len(modalities) != 1 or modalities[0][1].grid is None or len(modalities[0][1].grid) != 2:
        raise UserError(
            f"{backbone} takes one modality on a 2-D grid, the data have "
            f"{ {name: m.grid for name, m in modalities} }: use Perceiver, LambdaNet or Transformer"
        )
    return modalities[0]


def unflatten(byte_array: ByteArray, positions: bool) -> Tensor:
    """A byte array on a 2-D grid to a picture (B, C, H, W), with the positional features as further channels if asked."""
    elements = byte_array.concat() if positions else byte_array.values
    if byte_array.grid is None:
        raise UserError("this backbone needs elements on a grid, the byte array is a set: use Perceiver or LambdaNet")
    return elements.transpose(1, 2).unflatten(2, byte_array.grid)
