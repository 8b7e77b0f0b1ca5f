"""Metrics of regression, exact on any number of ranks."""

from __future__ import annotations

from torch import Tensor

from .classification import ScoreMetrics


class RegressionMetrics(ScoreMetrics):
    """rmse: root of the squared error's mean over samples and quantities; r2: share of the targets' variance explained."""

    definition = "rmse: root mean squared error; r2: 1 - squared error / squared deviation from the mean, of the split"

    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        return {"scores": scores.float()}

    def values(self, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
        error = (scores.double() - target.double()).square().mean()
        spread = target.double().var(dim=0, correction=0).mean()
        return {"rmse": error.sqrt(), "r2": 1 - error / spread}
