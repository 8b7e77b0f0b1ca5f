"""Metrics that are exact on any number of ranks: samples of weight 0 are left out, states are joined, not averaged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from datamodules.core.order import hashed_seed
from datamodules.core.windows import sample_of


def average_precision_per_class(scores: Tensor, target: Tensor) -> Tensor:
    """Average precision of every class, exact: sum over distinct thresholds of precision times the step in recall.

    scores, target: (S, classes). Returns (classes,) float64, NaN for a class without a positive. One sort for all classes;
    samples with equal scores enter together.
    """
    order = scores.argsort(dim=0, descending=True)
    ranked = scores.gather(0, order)
    hits = target.gather(0, order).to(torch.float64).cumsum(dim=0)
    rank = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device)[:, None]
    precision = hits / rank
    # within a run of equal scores every hit counts with the precision at the run's end
    last_of_run = torch.ones_like(ranked, dtype=torch.bool)
    last_of_run[:-1] = ranked[:-1] != ranked[1:]
    before = torch.where(last_of_run, hits, 0).cummax(dim=0).values.roll(1, dims=0)
    before[0] = 0
    gained = torch.where(last_of_run, hits - before, 0)
    return (precision * gained).sum(dim=0) / hits[-1]  # 0 / 0 is NaN: no positives


class ScoreMetrics(Metric):
    """Keeps the scores and targets of all real samples; the order of ranks does not change what is computed from them.

    Samples named KEY@NUMBER are windows of one clip, on whatever ranks: their scores are averaged, and they count as one.
    """

    definition: str  # what the values are; runs of other definitions are not compared
    full_state_update = False
    scores: list[Tensor]
    targets: list[Tensor]
    clips: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")
        self.add_state("clips", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, target: Tensor, weight: Tensor, keys: Sequence[str]) -> None:
        real = weight > 0
        clips = [hashed_seed(sample_of(key)) for key in keys]  # ranks exchange numbers, not strings
        self.clips.append(torch.tensor(clips, device=scores.device)[real])
        self.scores.append(scores[real].detach().float())
        self.targets.append(target[real])

    def gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (clips, classes), targets and numbers of all clips, which tell them apart."""
        scores, targets, clips = dim_zero_cat(self.scores), dim_zero_cat(self.targets), dim_zero_cat(self.clips)
        names, clip = clips.unique(return_inverse=True)
        if len(names) == len(scores):
            return scores, targets, clips
        # in float64, where sums of a few float32 scores do not depend on their order
        sums = scores.new_zeros(len(names), scores.shape[1], dtype=torch.float64).index_add_(0, clip, scores.double())
        means = sums / clip.bincount()[:, None]
        return means, targets.new_empty(len(names), *targets.shape[1:]).index_copy_(0, clip, targets), names

    def predictions(self) -> dict[str, np.ndarray]:
        """Of the samples of all ranks, in one order whatever the ranks: `sample` (a number that stands for the name),
        `target`, and what was predicted."""
        with self.sync_context():
            scores, target, sample = self.gathered()
        order = sample.argsort()
        arrays = {"sample": sample, "target": target, **self.predicted(scores)}
        return {name: array[order].cpu().numpy() for name, array in arrays.items()}

    @abstractmethod
    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        """What is kept of scores (S, classes)."""


class MultiLabelMetrics(ScoreMetrics):
    """map: macro mean of average precision over the classes that have a positive; map_classes: how many these are."""

    definition = "map: macro mean, over the classes with a positive, of average precision at every distinct score"

    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        return {"scores": scores.float()}

    def compute(self) -> dict[str, Tensor]:
        scores, target, _ = self.gathered()
        per_class = average_precision_per_class(scores, target)
        counted = ~per_class.isnan()
        return {"map": per_class[counted].mean(), "map_classes": counted.sum(), "samples": torch.tensor(len(scores))}


class SingleLabelMetrics(ScoreMetrics):
    """top1 and, with more than five classes, top5: shares of samples whose class is among the best-scored ones."""

    definition = "top1, top5: share of samples whose class is among the one or five with the highest scores"

    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        return {"predicted": scores.argmax(dim=1)}

    def compute(self) -> dict[str, Tensor]:
        scores, target, _ = self.gathered()
        found = {"top1": (scores.argmax(dim=1) == target).double().mean()}
        if scores.shape[1] > 5:
            found["top5"] = (scores.topk(5, dim=1).indices == target[:, None]).any(dim=1).double().mean()
        return {**found, "samples": torch.tensor(len(scores))}


COUNTS = ("samples", "map_classes")


def metrics_of(trainer: L.Trainer, split: str) -> dict[str, float]:
    """The last metrics that a trainer logged for a split, without the split's name; counts are whole numbers."""
    logged = {
        name.removeprefix(f"{split}/"): value.item()
        for name, value in trainer.callback_metrics.items()
        if name.startswith(f"{split}/")
    }
    return {name: int(value) if name in COUNTS else value for name, value in logged.items()}
