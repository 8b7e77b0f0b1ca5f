"""Mean average precision at the size of AudioSet's evaluation split, beside scikit-learn's and torchmetrics'."""

from __future__ import annotations

from functools import partial

import pandas as pd
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics.functional.classification import multilabel_average_precision

from ..metrics.classification import average_precision_per_class
from .measure import alternate, save

SAMPLES, CLASSES, POSITIVES = 20_000, 527, 2  # labels of a sample, on average
LEVELS = {"": 0, ", 100 distinct scores": 100}


def scikit_learn(scores: Tensor, target: Tensor) -> Tensor:
    columns = zip(target.numpy().T, scores.numpy().T, strict=True)
    found = [average_precision_score(of_class, its_scores) for of_class, its_scores in columns]
    return torch.tensor(found, dtype=torch.float64)


def torchmetrics(scores: Tensor, target: Tensor) -> Tensor:
    return multilabel_average_precision(scores, target, scores.shape[1], average="none")


IMPLEMENTATIONS = {"ours": average_precision_per_class, "scikit-learn": scikit_learn, "torchmetrics": torchmetrics}


def run(rounds: int = 5, samples: int = SAMPLES, classes: int = CLASSES) -> pd.DataFrame:
    """Median seconds, the ratio to scikit-learn's, and the largest difference of a class's value from its."""
    generator, rows = torch.Generator().manual_seed(0), []
    scores = torch.rand(samples, classes, generator=generator)
    target = (torch.rand(samples, classes, generator=generator) < POSITIVES / classes).long()
    for suffix, levels in LEVELS.items():
        given = (scores * levels).floor() / levels if levels else scores
        found = {name: compute(given, target) for name, compute in IMPLEMENTATIONS.items()}
        steps = {name: partial(compute, given, target) for name, compute in IMPLEMENTATIONS.items()}
        seconds = alternate(steps, rounds, f"average precision{suffix}")
        for name in IMPLEMENTATIONS:
            row = {"case": f"{samples:,} x {classes}{suffix}", "implementation": name, "seconds": seconds[name]}
            row["ratio"] = seconds[name] / seconds["scikit-learn"]
            row["difference"] = float((found[name] - found["scikit-learn"]).abs().max())
            rows.append(row)
    return save(rows, "metrics")
