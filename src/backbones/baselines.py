"""The baselines of both papers, built on timm."""

from __future__ import annotations

import math
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError
from datamodules.core.checks import check_counts, check_range

from .base import Backbone, real_inputs

DEEPEST = 1000  # blocks
RESNET_STEM_PIXELS = 49  # receptive field of a ResNet's first convolution, 7 x 7 (Perceiver, table 2)


class TimmImageNetwork(Backbone):
    """Base class: a timm network on a single modality with a 2-D grid.

    Args:
        data_spec: spec of the data.
        name: name of the timm model.
        positions: append the positional features to the input channels (`RGB + FF` in the Perceiver's table 1).
        stochastic_depth: probability of dropping the last block in training; it grows from 0 over the blocks.

    Raises:
        UserError: the data are not a single 2-D grid, or timm has no such model in this family.
    """

    prefixes: tuple[str, ...]  # of the timm model names in this family
    examples: str  # model names to suggest in the error message
    first_layer_pixels: int  # receptive field of the first layer, in pixels

    def __init__(self, data_spec: DataSpec, name: str, positions: bool = False, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        kind = type(self).__name__
        check_range(0, 1, stochastic_depth=stochastic_depth)
        self.data_spec = data_spec
        self.modality, spec = one_image(kind, data_spec)
        self.positions = positions
        self.channels = spec.channels + (spec.position_channels if positions else 0)
        if not name.startswith(self.prefixes) or not timm.is_model(name):
            raise UserError(f"{kind} got the unknown timm model {name!r}: choose {self.examples}, ...")
        self.network: Any = timm.create_model(
            name,
            in_chans=self.channels,
            num_classes=0,
            global_pool="",
            drop_path_rate=stochastic_depth,
            **self.timm_options(spec),
        )
        width: Any = self.network.num_features
        self.num_features = width

    def timm_options(self, spec: ModalitySpec) -> dict:
        """Extra keyword arguments for `timm.create_model`."""
        return {}

    def adapted(self, network: nn.Module) -> nn.Module:
        """timm's network, or one with its weights, as `network` holds it."""
        return network

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Returns the last feature map, flattened: (B, h * w, D)."""
        return (
            self.network(to_image(real_inputs(self.data_spec, inputs)[self.modality], self.positions))
            .flatten(2)
            .transpose(1, 2)
        )

    def feature_maps(self, inputs: dict[str, ByteArray]) -> list[Tensor]:
        """Returns feature maps (B, C, H, W) at strides 4, 8, 16 and 32."""
        image = to_image(real_inputs(self.data_spec, inputs)[self.modality], self.positions)
        return self.network.forward_intermediates(image, indices=4, intermediates_only=True)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules that FSDP shards individually: the children of timm's sequential stages."""
        sequences = [child for child in self.network.children() if isinstance(child, nn.Sequential)]
        return [block for sequence in sequences for block in sequence.children()]

    def receptive_field(self) -> int:
        """Receptive field of the first layer, in pixels."""
        return self.first_layer_pixels


class ResNet(TimmImageNetwork):
    """A ResNet from timm.

    Args:
        data_spec: spec of the data, a single modality on a 2-D grid.
        name: timm name, such as resnet50.
        positions: append the positional features to the input channels.
        stochastic_depth: probability of dropping the last block in training; it grows from 0 over the blocks.
    """

    prefixes, examples = ("resnet",), "resnet18, resnet34, resnet50"
    first_layer_pixels = RESNET_STEM_PIXELS

    def __init__(
        self, data_spec: DataSpec, name: str = "resnet50", positions: bool = False, stochastic_depth: float = 0.0
    ) -> None:
        super().__init__(data_spec, name, positions, stochastic_depth)


class EfficientNet(TimmImageNetwork):
    """An EfficientNet, B0 to B7, from timm.

    Args:
        data_spec: spec of the data, a single modality on a 2-D grid.
        name: timm name: efficientnet_b0 to b7, or tf_efficientnet_b0 to b7 with the padding of the published weights.
        positions: append the positional features to the input channels.
        stochastic_depth: probability of dropping the last block in training; it grows from 0 over the blocks.
    """

    prefixes, examples = ("efficientnet_b", "tf_efficientnet_b"), "efficientnet_b0, efficientnet_b1"
    first_layer_pixels = 9

    def __init__(
        self, data_spec: DataSpec, name: str = "efficientnet_b0", positions: bool = False, stochastic_depth: float = 0.0
    ) -> None:
        super().__init__(data_spec, name, positions, stochastic_depth)


class ViT(TimmImageNetwork):
    """A vision transformer from timm.

    Args:
        data_spec: spec of the data, a single modality on a 2-D grid.
        name: timm name, such as vit_base_patch16_224.
        positions: append the positional features to the input channels.
        stochastic_depth: probability of dropping the last block in training; it grows from 0 over the blocks.
        patch: side of a patch in pixels. Default: that of the named model.
        depth: number of transformer blocks. Default: that of the named model.
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
        check_counts(patch=patch)
        check_range(1, DEEPEST, depth=depth)
        self.overrides = {"patch_size": patch, "depth": depth}
        super().__init__(data_spec, name, positions, stochastic_depth)
        rows, columns = self.network.patch_embed.patch_size
        self.first_layer_pixels = rows * columns

    def timm_options(self, spec: ModalitySpec) -> dict:
        return {"img_size": spec.grid, **{name: value for name, value in self.overrides.items() if value is not None}}

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Returns the features of the class token and all patches: (B, 1 + patches, D)."""
        return self.network(to_image(real_inputs(self.data_spec, inputs)[self.modality], self.positions))

    def feature_maps(self, inputs: dict[str, ByteArray]) -> list[Tensor]:
        return Backbone.feature_maps(self, inputs)  # a single grid of patches


class Transformer(Backbone):
    """A transformer over the elements of all modalities (Perceiver, section 4.1: on ImageNet downsampled to 64x64).

    Args:
        data_spec: spec of the data, any number of modalities.
        dim: channels of the transformer blocks.
        depth: number of transformer blocks.
        heads: attention heads.
        max_side: 2-D grids with longer sides are average-pooled to this length; None keeps them.
    """

    def __init__(
        self, data_spec: DataSpec, dim: int = 512, depth: int = 8, heads: int = 8, max_side: int | None = 64
    ) -> None:
        super().__init__()
        check_counts(dim=dim, heads=heads, max_side=max_side)
        check_range(1, DEEPEST, depth=depth)
        if dim % heads:
            raise UserError(f"dim {dim} does not divide by heads {heads}: change one")
        self.data_spec = data_spec
        self.num_features = dim
        self.max_side = max_side
        self.embed = nn.ModuleDict(
            {name: nn.Linear(m.channels + m.position_channels, dim) for name, m in data_spec.modalities.items()}
        )
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.elements = sum(
            math.prod(limit_grid(m.grid, max_side)) if m.grid else m.elements for m in data_spec.modalities.values()
        )

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Returns the features of all elements after downsampling: (B, M, D). Masked ones have the mean of the real ones,
        so that they do not count in a mean over all."""
        arrays = {name: self.downsample(array) for name, array in real_inputs(self.data_spec, inputs).items()}
        x = torch.cat([embed(arrays[name].concat()) for name, embed in self.embed.items()], dim=1)
        if all(array.mask is None for array in arrays.values()):
            for block in self.blocks:
                x = block(x)
            return self.norm(x)
        masks = (
            a.values.new_ones(a.values.shape[:2], dtype=torch.bool) if a.mask is None else a.mask
            for a in arrays.values()
        )
        real = torch.cat(list(masks), dim=1)
        for block in self.blocks:
            x = block(x, attn_mask=real[:, None, None])
        x = self.norm(x).masked_fill(~real[..., None], 0)
        mean = x.sum(dim=1, keepdim=True) / real.sum(dim=1)[:, None, None].clamp(min=1)
        return torch.where(real[..., None], x, mean)

    def downsample(self, byte_array: ByteArray) -> ByteArray:
        """Average-pools a 2-D grid to sides of at most `max_side`: positions, and the values of real elements."""
        grid, mask = byte_array.grid, byte_array.mask
        if grid is None or (small := limit_grid(grid, self.max_side)) == grid:
            return byte_array

        def pool(x: Tensor) -> Tensor:
            image = x.transpose(-1, -2).unflatten(-1, grid)
            return F.adaptive_avg_pool2d(image, (small[0], small[1])).flatten(-2).transpose(-1, -2)

        values, positions = pool(byte_array.values), pool(byte_array.positions)
        if mask is None:
            return ByteArray(values, positions, small)
        share = pool(mask[..., None].to(values.dtype))  # of real elements; the others are 0
        values = values / share.clamp(min=torch.finfo(values.dtype).tiny)
        return ByteArray(values, positions, small, mask=share[..., 0] > 0)

    def receptive_field(self) -> int:
        """Receptive field of the first layer: all elements that are left after downsampling."""
        return self.elements


def limit_grid(grid: tuple[int, ...], max_side: int | None) -> tuple[int, ...]:
    """The grid after downsampling: 2-D grids have sides of at most `max_side`."""
    return grid if max_side is None or len(grid) != 2 else tuple(min(length, max_side) for length in grid)


def one_image(backbone: str, data_spec: DataSpec) -> tuple[str, ModalitySpec]:
    """Returns the name and spec of the only modality.

    Raises:
        UserError: there are several modalities, or the only one has no 2-D grid.
    """
    modalities = list(data_spec.modalities.items())
    if len(modalities) != 1 or modalities[0][1].grid is None or len(modalities[0][1].grid) != 2:
        raise UserError(
            f"{backbone} needs a single modality on a 2-D grid, but the data have grids "
            f"{ {name: m.grid for name, m in modalities} }: use Perceiver, LambdaNet or Transformer"
        )
    return modalities[0]


def to_image(byte_array: ByteArray, positions: bool) -> Tensor:
    """Reshapes a byte array on a 2-D grid to (B, C, H, W) with the channels last in memory, also if there is only one.

    `positions` appends the positional features to the channels.
    """
    elements = byte_array.concat() if positions else byte_array.values
    if byte_array.grid is None:
        raise UserError(
            "this backbone needs elements on a grid, but the byte array is a set: use Perceiver or LambdaNet"
        )
    return elements.unflatten(1, byte_array.grid).movedim(-1, 1)
