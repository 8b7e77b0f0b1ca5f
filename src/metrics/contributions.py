"""What each test sample contributes to a metric, so that samples can be resampled without computing the metric again.

A metric is written as the mean of one contribution per sample. For top-1 that is exact: right or wrong. For mean average
precision it is the first-order expansion in the samples' weights (the infinitesimal jackknife; Efron and Tibshirani 1993,
section 21.4): one sort of the scores instead of one per resample. It also avoids a bias of the plain bootstrap: a sample
drawn twice is ranked next to itself, which raises average precision (for 15 positives among 300 from 0.174 to 0.193 on
average) and the interval with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def correct(predictions: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """1 where the predicted class is the target, else 0: (S,)."""
    if "predicted" not in predictions:
        return None
    return (predictions["predicted"] == predictions["target"]).astype(np.float64)


def precision_contributions(predictions: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Contributions (S,) to the macro mean of average precision over the classes with a positive.

    With weights w of the samples, AP(w) = sum_i w_i y_i h_i / r_i / sum_i w_i y_i, where r_i weighs the samples that score at
    least as high as i and h_i the positives among them. A sample contributes AP + S dAP/dw at w = 1.
    """
    if "scores" not in predictions or predictions["target"].ndim != 2:
        return None
    scores, target = predictions["scores"], predictions["target"]
    counted = np.flatnonzero(target.any(axis=0))
    total = np.zeros(len(scores))
    for number in counted:
        y = target[:, number].astype(np.float64)
        _, rank = np.unique(-scores[:, number], return_inverse=True)  # equal scores share a rank
        positives = np.bincount(rank, y)
        r, h = np.bincount(rank).cumsum(), positives.cumsum()
        precision = h / r
        ap = (positives * precision).sum() / h[-1]
        # of a positive: what it adds to the precision at positives that rank no higher; of any sample: what it takes away
        gain = np.cumsum((positives / r)[::-1])[::-1]
        loss = np.cumsum((positives * h / r**2)[::-1])[::-1]
        slope = (y * (precision + gain - ap)[rank] - loss[rank]) / h[-1]
        total += ap + len(scores) * slope
    return total / len(counted)
