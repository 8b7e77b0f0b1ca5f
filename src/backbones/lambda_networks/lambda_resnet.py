"""ResNets with lambda layers in place of 3x3 convolutions (LambdaNetworks, section 4)."""

from __future__ import annotations

from math import ceil

from timm.layers import DropPath, SqueezeExcite
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import ByteArray, DataSpec, UserError
from datamodules.core.checks import check_counts, check_range

from ..base import Backbone, real_inputs
from ..baselines import RESNET_STEM_PIXELS, one_image, to_image
from .lambda_layer import LambdaLayer

BLOCKS = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    270: (4, 29, 53, 4),
    350: (4, 36, 72, 4),
    420: (4, 44, 87, 4),
}


class LambdaResNet(Backbone):
    """A bottleneck ResNet with lambda layers, 3x3 convolutions or both, on one modality with a 2-D grid.

    The paper's LambdaResNets have stages CCLC, squeeze_excite, and c4_lambdas 1 (depth 50), 3 (101), 6 (152 to 350) or
    8 (420).

    Args:
        data_spec: spec of the data, a single modality on a 2-D grid.
        depth: 26, 50, 101, 152, 200, 270, 350 or 420 (appendix; 26 as in timm).
        stages: a letter for each of the four stages, L for lambda layers, C for 3x3 convolutions, such as CCLL.
        c4_lambdas: number of lambda layers in the third stage, evenly spread among convolutions. Default: all.
        squeeze_excite: add squeeze-and-excitation to the blocks with a convolution.
        scope: r of the lambda layers, odd; None for global layers, with embeddings up to the grid of the data.
        key_depth: k of the lambda layers, depth of queries and keys.
        heads: h of the lambda layers, number of query heads.
        intra_depth: u of the lambda layers, intra-depth of keys and values.
        share_embeddings: share the embeddings among the lambda layers of a stage (table 4).
        stochastic_depth: probability of dropping the last block in training; it grows linearly from 0 over the blocks.
        positions: append the positional features to the input channels.

    Raises:
        UserError: the data are not a single 2-D grid, or depth, stages or c4_lambdas are invalid.
    """

    def __init__(
        self,
        data_spec: DataSpec,
        depth: int = 50,
        stages: str = "LLLL",
        c4_lambdas: int | None = None,
        squeeze_excite: bool = False,
        scope: int | None = 23,
        key_depth: int = 16,
        heads: int = 4,
        intra_depth: int = 1,
        share_embeddings: bool = False,
        stochastic_depth: float = 0.0,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.data_spec = data_spec
        self.modality, spec = one_image("LambdaResNet", data_spec)
        check_counts(scope=scope, key_depth=key_depth, heads=heads, intra_depth=intra_depth)
        check_range(0, 1, stochastic_depth=stochastic_depth)
        if depth not in BLOCKS:
            raise UserError(f"LambdaResNet has no depth {depth}: choose from {', '.join(map(str, BLOCKS))}")
        if len(stages) != 4 or set(stages) - set("CL"):
            raise UserError(
                f"LambdaResNet got stages {stages!r}: pass four letters, each L (lambda) or C (convolution), such as CCLL"
            )
        if c4_lambdas is not None and (stages[2] != "L" or not 1 <= c4_lambdas <= BLOCKS[depth][2]):
            raise UserError(
                f"LambdaResNet got c4_lambdas {c4_lambdas} with stages {stages}: the third letter must be L and the number "
                f"between 1 and {BLOCKS[depth][2]}, the number of blocks in that stage"
            )
        channels = spec.channels + (spec.position_channels if positions else 0)
        self.positions = positions
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        height, width = (ceil(length / 4) for length in spec.grid or ())
        total, done, dim = sum(BLOCKS[depth]), 0, 64
        self.stages = nn.ModuleList()
        for stage, (count, letter) in enumerate(zip(BLOCKS[depth], stages, strict=True)):
            blocks: list[Bottleneck] = []
            lambdas = 0 if letter == "C" else c4_lambdas if stage == 2 and c4_lambdas is not None else count
            embeddings = None
            for number in range(count):
                inner = 64 * 2**stage
                mix: LambdaLayer | None = None
                if (number + 1) * lambdas // count > number * lambdas // count:
                    grid = (height, width) if scope is None else None
                    local = None if scope is None else (scope, scope)
                    mix = LambdaLayer(inner, inner, key_depth, heads, intra_depth, grid, local, embeddings=embeddings)
                    embeddings = mix.embeddings if share_embeddings else None
                stride = 2 if stage and number == 0 else 1
                drop = stochastic_depth * done / max(1, total - 1)
                blocks.append(Bottleneck(dim, inner, stride, mix, squeeze_excite and mix is None, drop))
                dim, done = 4 * inner, done + 1
                if stride == 2:
                    height, width = ceil(height / 2), ceil(width / 2)
            self.stages.append(nn.Sequential(*blocks))
        self.num_features = dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Returns the last feature map, flattened: (B, h * w, D)."""
        return self.feature_maps(inputs)[-1].flatten(2).transpose(1, 2)

    def feature_maps(self, inputs: dict[str, ByteArray]) -> list[Tensor]:
        """Returns the outputs of all stages, (B, C, H, W) at strides 4, 8, 16 and 32."""
        x = self.stem(to_image(real_inputs(self.data_spec, inputs)[self.modality], self.positions))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules that FSDP shards individually: whole stages, since their blocks may share embeddings."""
        return list(self.stages)

    def receptive_field(self) -> int:
        """Receptive field of the first layer, in pixels."""
        return RESNET_STEM_PIXELS


class Bottleneck(nn.Module):
    """1x1 convolution, lambda layer or 3x3 convolution, 1x1 convolution, and a shortcut.

    With a lambda layer, a stride is a 3x3 average pool after it (section 4).
    """

    def __init__(
        self, dim: int, inner: int, stride: int, mix: LambdaLayer | None, squeeze_excite: bool, drop: float
    ) -> None:
        super().__init__()
        out = 4 * inner
        self.narrow = nn.Sequential(nn.Conv2d(dim, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
        self.mix: nn.Module
        if mix is None:
            self.mix = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        elif stride == 1:
            self.mix = mix
        else:
            self.mix = nn.Sequential(mix, nn.AvgPool2d(3, stride=stride, padding=1))
        last = nn.BatchNorm2d(out)
        nn.init.zeros_(last.weight)
        self.widen = nn.Sequential(nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, out, 1, bias=False), last)
        self.excite = SqueezeExcite(out, rd_ratio=1 / 16) if squeeze_excite else nn.Identity()
        self.drop = DropPath(drop) if drop else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or dim != out:
            self.shortcut = nn.Sequential(nn.Conv2d(dim, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen(self.mix(self.narrow(x)))
        return F.relu(self.shortcut(x) + self.drop(self.excite(y)))
