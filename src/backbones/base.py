"""The contract of all backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from torch import Tensor, nn

from datamodules import ByteArray, DataSpec, UserError


class Backbone(nn.Module, ABC):
    """Turns the byte arrays of a data set into features.

    A subclass takes the data spec as its first constructor argument, sets `num_features`, and gives `forward` and
    `receptive_field`; where it has maps on several strides, also `feature_maps`, which detection needs. A backbone that can
    show what it attends to has `attention_maps(inputs, iterations)`, as Perceiver has. If it has `blocks`, a list of modules,
    fsdp shards them one by one.

    Attributes:
        num_features: D, channels of the features.
    """

    num_features: int

    @abstractmethod
    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """One byte array per modality to features (B, N, D)."""

    @abstractmethod
    def receptive_field(self) -> int:
        """Number of elements that a unit of the first layer can see (Perceiver, table 2)."""

    def feature_maps(self, inputs: dict[str, ByteArray]) -> list[Tensor]:
        """Feature maps (B, C, H, W), the finest first.

        Raises:
            UserError: the backbone has none.
        """
        raise UserError(
            f"{type(self).__name__} has no feature maps of several strides: use ResNet, EfficientNet or LambdaResNet"
        )


def real_inputs(data_spec: DataSpec, inputs: dict[str, ByteArray]) -> dict[str, ByteArray]:
    """The modalities of a data spec, with zeros where elements are masked: 0 times what padding holds may be NaN.

    Raises:
        UserError: a modality is missing, or has other channels than the data spec says.
    """
    found = {}
    for name, spec in data_spec.modalities.items():
        if name not in inputs:
            raise UserError(
                f"the batch has no {name}, only {', '.join(inputs)}: build the backbone with the spec of its data"
            )
        array = inputs[name]
        channels, wanted = (array.values.shape[-1], array.positions.shape[-1]), (spec.channels, spec.position_channels)
        if channels != wanted:
            raise UserError(
                f"{name} has {channels[0]} channels and {channels[1]} of positions, but the backbone was built for "
                f"{wanted[0]} and {wanted[1]}: build it with the spec of these data"
            )
        if array.mask is not None:
            padding = ~array.mask[..., None]
            positions = array.positions
            own = positions.masked_fill(padding, 0) if positions.dim() == 3 else positions
            array = replace(array, values=array.values.masked_fill(padding, 0), positions=own)
        found[name] = array
    return found
