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

from datamodules import UserError
from datamodules.core.order import hashed_seed, rank_and_world
from datamodules.core.windows import sample_of

from .registry import METRICS


def average_precision_per_class(scores: Tensor, target: Tensor) -> Tensor:
    """Average precision of every class, exact: sum over distinct thresholds of precision times the step in recall.

    That is the mean, over the positives, of the precision among the samples that score at least as high; samples with equal
    scores enter together. Precision is only needed at positives, so scores are sorted without their places, which numpy
    does many times faster than with them.

    Args:
        scores: (S, classes), finite.
        target: (S, classes), above 0 for positives.

    Returns:
        (classes,) float64, NaN for a class without a positive.
    """
    columns, positive = (x.T.contiguous().cpu().numpy() for x in (scores, target > 0))
    found = torch.full((len(columns),), torch.nan, dtype=torch.float64)
    for number in np.flatnonzero(positive.any(axis=1)):
        of_all, of_positives = np.sort(columns[number]), np.sort(columns[number][positive[number]])
        ranks = len(of_all) - np.searchsorted(of_all, of_positives)
        hits = len(of_positives) - np.searchsorted(of_positives, of_positives)
        found[number] = (hits / ranks).mean()
    return found


NAMED = 5  # keys that an error names


def check_finite(scores: Tensor, real: Tensor, keys: Sequence[str]) -> None:
    """Raises UserError where scores (B, outputs) of real samples (B,) are not finite: a metric of them means nothing."""
    broken = (real & ~scores.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if broken:
        named = ", ".join(keys[row] for row in broken[:NAMED]) + (", ..." if len(broken) > NAMED else "")
        raise UserError(
            f"scores of {len(broken)} of {len(keys)} samples in a batch are NaN or infinite ({named}): the weights have "
            "diverged, or these samples hold such values; look at train/loss, and train with a smaller learning rate"
        )


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

        Raises:
            UserError: scores of samples that count are not finite.
        """
        real = weight > 0
        check_finite(scores, real, keys)
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
    """top1 and, with more than five classes, top5: share of samples whose class is among the highest scores.

    Of classes with equal scores the one with the lower index ranks first, for both.
    """

    definition = "top1, top5: share of samples whose class is among the one or five with the highest scores"

    def predicted(self, scores: Tensor) -> dict[str, Tensor]:
        return {"predicted": scores.argmax(dim=1)}  # the first of equal ones

    def values(self, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
        own = scores.gather(1, target[:, None])
        first = torch.arange(scores.shape[1], device=scores.device) < target[:, None]
        rank = ((scores > own) | ((scores == own) & first)).sum(dim=1)  # classes before the sample's
        found = {"top1": (rank < 1).double().mean()}
        if scores.shape[1] > 5:
            found["top5"] = (rank < 5).double().mean()
        return found
