"""Metrics of scores, exact on any number of ranks: padding is left out, states are joined, not averaged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from datamodules.core.order import hashed_seed, rank_and_world
from datamodules.core.windows import sample_of

from .registry import METRICS


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

    definition: str  # how the values are computed; runs with different definitions are not compared
    full_state_update = False
    scores: list[Tensor]
    targets: list[Tensor]
    clips: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")
        self.add_state("clips", default=[], dist_reduce_fx="cat")
        self.keys: dict[int, str] = {}  # clips by their numbers

    def update(self, scores: Tensor, target: Tensor, weight: Tensor, keys: Sequence[str]) -> None:
        """Add a batch.

        Args:
            scores: (B, outputs).
            target: (B,) or (B, outputs).
            weight: (B,), 0 for samples that do not count.
            keys: the samples' names.
        """
        real = weight > 0
        clips = [sample_of(key) for key in keys]
        numbers = [hashed_seed(clip) for clip in clips]  # ranks exchange numbers, not strings
        self.keys.update(zip(numbers, clips, strict=True))
        self.clips.append(torch.tensor(numbers, device=scores.device)[real])
        self.scores.append(scores[real].detach().float())
        self.targets.append(target[real])

    def reset(self) -> None:
        super().reset()
        self.keys = {}

    def gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (clips, outputs), targets and numbers of all clips."""
        scores, targets, clips = dim_zero_cat(self.scores), dim_zero_cat(self.targets), dim_zero_cat(self.clips)
        numbers, clip = clips.unique(return_inverse=True)
        if len(numbers) == len(scores):
            return scores, targets, clips
        # in float64, where sums of a few float32 scores do not depend on their order
        sums = scores.new_zeros(len(numbers), scores.shape[1], dtype=torch.float64).index_add_(0, clip, scores.double())
        means = sums / clip.bincount()[:, None]
        return means, targets.new_empty(len(numbers), *targets.shape[1:]).index_copy_(0, clip, targets), numbers

    def predictions(self) -> dict[str, np.ndarray]:
        """Predictions for the samples of all ranks, in the same order for any number of ranks: `key`, `sample` (a hash of the
        key), `target`, and what `predicted` keeps."""
        with self.sync_context():
            scores, target, sample = self.gathered()
        names = self.keys
        if rank_and_world()[1] > 1:
            ranks: list[Any] = [None] * rank_and_world()[1]
            dist.all_gather_object(ranks, self.keys)
            names = {number: key for keys in ranks for number, key in keys.items()}
        order = sample.argsort()
        arrays = {"sample": sample, "target": target, **self.predicted(scores)}
        found = {name: array[order].cpu().numpy() for name, array in arrays.items()}
        return {"key": np.array([names[number] for number in found["sample"].tolist()], dtype=np.str_), **found}

    def compute(self) -> dict[str, Tensor]:
        """The task's values, those of other registered metrics, and the number of samples."""
        scores, target, _ = self.gathered()
        found = self.values(scores, target)
        others = [metric for metric in METRICS.values() if metric.compute is not None]
        if others:
            arrays = {"target": target, **self.predicted(scores)}
            predictions = {name: array.cpu().numpy() for name, array in arrays.items()}
            values = {metric.name: metric.compute(predictions) for metric in others if metric.compute is not None}
            found |= {name: torch.tensor(value) for name, value in values.items() if value is not None}
        return {**found, "samples": torch.tensor(len(scores))}

    @abstractmethod
    def values(self, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Metrics of scores (S, outputs) and targets of all samples."""

    @abstractmethod
    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        """What is kept of scores (S, outputs)."""


class MultiLabelMetrics(ScoreMetrics):
    """map: macro mean of average precision over the classes with a positive; map_classes: their number."""

    definition = "map: macro mean, over the classes with a positive, of average precision at every distinct score"

    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        return {"scores": scores.float()}

    def values(self, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
        per_class = average_precision_per_class(scores, target)
        counted = ~per_class.isnan()
        return {"map": per_class[counted].mean(), "map_classes": counted.sum()}


class SingleLabelMetrics(ScoreMetrics):
    """top1 and, with more than five classes, top5: share of samples whose class is among the highest scores."""

    definition = "top1, top5: share of samples whose class is among the one or five with the highest scores"

    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        return {"predicted": scores.argmax(dim=1)}

    def values(self, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
        found = {"top1": (scores.argmax(dim=1) == target).double().mean()}
        if scores.shape[1] > 5:
            found["top5"] = (scores.topk(5, dim=1).indices == target[:, None]).any(dim=1).double().mean()
        return found
