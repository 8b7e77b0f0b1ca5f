"""Reconstruction: the values of a modality, element by element, from the features of the same elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from datamodules import Batch, ByteArray, DataSpec, UserError

from ..backbones.base import Backbone, real_inputs
from ..metrics.reconstruction import ReconstructionMetrics
from ..optim import Schedule
from .base import Task


class Reconstruction(Task):
    """A backbone with one row of features for each element of a modality, and one linear map to the element's values.

    This is the autoencoding of Perceiver IO (section 4.3 of arXiv 2107.14795): latents hold what the decoder's queries, made
    of positions, are to read. Targets of the data are not used. Errors are in the units in which the backbone reads values.

    Args:
        data_spec: comes from the datamodule.
        backbone: the network, made with the data spec: PerceiverIO with `outputs` set to the modality.
        modality: the modality to reconstruct.
        optimizer: of torch or timm, made with the parameters; its `lr` is what the schedule scales.
        schedule: of src.optim, the factor of the learning rate over training; None keeps it constant.
        **options: of every task: weights, freeze, lr_decay and decay.
    """

    tasks = ("single_label", "multi_label", "regression")

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], Backbone],
        modality: str,
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_spec, backbone, optimizer, schedule, **options)
        if modality not in data_spec.modalities:
            raise UserError(f"modality is {modality!r}, the data have {list(data_spec.modalities)}: name one of them")
        self.modality = modality
        self.head = nn.Linear(self.backbone.num_features, data_spec.modalities[modality].channels)
        self.set_metrics(ReconstructionMetrics, "rmse")

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """The reconstructed values (B, M, C).

        Raises:
            UserError: the backbone has other rows of features than the modality has elements.
        """
        features = self.backbone(inputs)
        wanted = inputs[self.modality].values.shape[:2]
        if features.shape[:2] != wanted:
            raise UserError(
                f"{type(self.backbone).__name__} gives {features.shape[1]} rows of features for {wanted[1]} elements of "
                f"{self.modality}: use PerceiverIO with outputs {self.modality}"
            )
        return self.head(features)

    def errors(self, predicted: Tensor, batch: Batch) -> Tensor:
        """Squared error of every example (B,), the mean over the values of its real elements."""
        array = real_inputs(self.data_spec, batch.inputs)[self.modality]
        squared = (predicted - array.values.to(predicted.dtype)).square().mean(dim=2)
        if array.mask is None:
            return squared.mean(dim=1)
        return squared.masked_fill(~array.mask, 0).sum(dim=1) / array.mask.sum(dim=1).clamp(min=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        return self.mean_loss(self.errors(self(batch.inputs), batch), batch)

    def evaluate(self, batch: Batch, split: str, metrics: Any) -> None:
        predicted = self(batch.inputs)
        metrics.update(predicted, batch.inputs[self.modality], batch.weight, batch.keys)
        self.log_mean(f"{split}/loss", self.errors(predicted, batch), batch)

    def caption(self, prediction: Tensor, target: Any, names: Sequence[str]) -> tuple[str, bool | None]:
        return f"reconstructed from {prediction.min():.2f} to {prediction.max():.2f}", None
