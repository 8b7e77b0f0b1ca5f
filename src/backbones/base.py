"""The contract of all backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from datamodules import ByteArray, UserError


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
