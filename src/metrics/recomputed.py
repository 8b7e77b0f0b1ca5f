"""Metrics of a test split computed again from the predictions that a run kept, in numpy: to check what its results say."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from .registry import METRICS

EXACT = 1e-6  # relative; results hold float32, and sums are of float64


def recompute(predictions: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, float]:
    """Those of the named metrics that follow from the predictions; top-5 and the loss, for two, need what is not kept.

    Args:
        predictions: `target` (S,) or (S, outputs), with `predicted` (S,) or `scores` (S, outputs).
        names: of metrics that were measured.
    """
    target, scores = predictions["target"], predictions.get("scores")
    found = {"samples": float(len(target))}
    if scores is not None and "rmse" in names:
        error = np.square(scores.astype(np.float64) - target.astype(np.float64)).mean()
        found["rmse"] = math.sqrt(error)
        with np.errstate(divide="ignore", invalid="ignore"):
            found["r2"] = float(1 - error / target.astype(np.float64).var(axis=0).mean())
    elif scores is not None:
        found["map_classes"] = float(target.any(axis=0).sum())
    for name in names:
        metric = METRICS.get(name)
        if metric is None or name in found:
            continue
        if metric.contributions is not None and (parts := metric.contributions(predictions)) is not None:
            found[name] = float(parts.mean())
        elif metric.compute is not None and (value := metric.compute(predictions)) is not None:
            found[name] = value
    return {name: value for name, value in found.items() if name in names}


def same_value(one: float, other: float) -> bool:
    """Whether two values are one, computed in different orders; two that are not numbers are."""
    return math.isclose(one, other, rel_tol=EXACT, abs_tol=EXACT) or (math.isnan(one) and math.isnan(other))
