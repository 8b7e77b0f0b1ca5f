"""Trivial baselines: handmade features and a classical classifier, fitted in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from datamodules import Batch, ByteArray, DataSpec, UserError

from ..backbones.base import Backbone
from .classification import Classification
from .classifiers import Arrays, fit_forest, fit_logistic, fit_majority, fit_ridge, scores_of
from .handmade import byte_n_grams, hog, log_mel_statistics, nothing, shape_statistics

Method = Literal["majority", "log_mel", "shape", "hog", "byte_n_grams"]


class Recipe(NamedTuple):
    """Which modalities a method reads (all if none are named), its features, and what is fitted to them."""

    kinds: tuple[str, ...]
    features: Callable[..., Any]
    fit: Callable[..., Arrays]


RECIPES = {
    "majority": Recipe((), nothing, fit_majority),
    "log_mel": Recipe(("audio", "spectrogram"), log_mel_statistics, fit_logistic),
    "shape": Recipe(("points",), shape_statistics, fit_forest),
    "hog": Recipe(("image",), hog, fit_ridge),
    "byte_n_grams": Recipe(("text",), byte_n_grams, fit_ridge),
}


class NoBackbone(Backbone):
    """What a trivial baseline has in the place of a backbone: no features, and nothing to train.

    Args:
        data_spec: comes from the datamodule.
    """

    num_features = 1

    def __init__(self, data_spec: DataSpec) -> None:
        super().__init__()

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        first = next(iter(inputs.values())).values
        return first.new_zeros(len(first), 1, 1)

    def receptive_field(self) -> int:
        return 1


class Trivial(Classification):
    """A baseline that any trained model must beat, with the same splits, metrics and records.

    It is fitted once to the training split, without augmentation, in the first step; no budget makes it better. Methods:
    `majority`, the shares of the classes; `log_mel`, logistic regression on mean and standard deviation of log-mel bands;
    `shape`, a random forest on 25 statistics of a point cloud; `hog`, ridge regression on histograms of oriented gradients;
    `byte_n_grams`, ridge regression on counts of up to three bytes. Parameters and operations count as 0.

    Args:
        data_spec: comes from the datamodule; its task is single_label or multi_label.
        method: majority, log_mel, shape, hog or byte_n_grams.
    """

    explained = None  # what was fitted passes no gradient

    def __init__(self, data_spec: DataSpec, method: Method = "majority") -> None:
        super().__init__(data_spec, NoBackbone)
        self.method, self.recipe = method, RECIPES[method]
        found = (n for n, m in data_spec.modalities.items() if not self.recipe.kinds or m.kind in self.recipe.kinds)
        self.modality = next(found, "")
        if not self.modality:
            kinds = sorted({m.kind for m in data_spec.modalities.values()})
            raise UserError(
                f"the baseline {method} reads {' or '.join(self.recipe.kinds)}, these data have {', '.join(kinds)}: choose "
                f"another of {', '.join(RECIPES)}"
            )
        self.resumes_inside_epochs = False
        self.fitted: Arrays = {}

    @property
    def title(self) -> str:
        return f"The baseline {self.method}"

    @property
    def num_parameters(self) -> int:
        return 0

    @property
    def flops_per_example(self) -> int:
        return 0

    def features(self, inputs: dict[str, ByteArray]) -> Any:
        return self.recipe.features(self.data_spec.modalities[self.modality], inputs[self.modality])

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Class scores (B, classes): logarithms of probabilities, or what ridge regression predicts."""
        values = inputs[self.modality].values
        if not self.fitted:  # in Lightning's check before training
            return values.new_zeros(len(values), self.data_spec.num_classes)
        return torch.from_numpy(scores_of(self.fitted, self.features(inputs))).float().to(values.device)

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            raise UserError("a trivial baseline is fitted in one process: leave --trainer.devices at 1")
        trainer: Any = self.trainer
        trainer.limit_train_batches, trainer.fit_loop.max_epochs = 1, 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        data = self.trainer.datamodule  # pyrefly: ignore
        found, targets = [], []
        for compact in data.loader("train"):
            data.count_bad(compact)
            whole = data.flatten(data.transfer_batch_to_device(compact, self.device, 0))
            real = (whole.weight > 0).cpu().numpy()
            found.append(self.features(whole.inputs)[real])
            targets.append(whole.target.cpu().numpy()[real])
        join: Any = np.concatenate
        if not isinstance(found[0], np.ndarray):
            from scipy.sparse import vstack as join
        self.fitted = self.recipe.fit(join(found), np.concatenate(targets), self.data_spec.num_classes, data.seed)
        return 0 * self.head.weight.sum()  # Lightning saves no checkpoint where it has counted no step

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.head.parameters(), lr=0.0)  # moves nothing

    def get_extra_state(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.fitted.items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.fitted = {name: tensor.cpu().numpy() for name, tensor in state.items()}
