"""What probabilities are worth: calibration error, proper scores, temperature, and accuracy on the samples that are kept."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 15
COVERAGES = (0.5, 0.8, 0.9)


def confidence(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """How sure a prediction is, and whether it is right: both (n,), n decisions.

    With one label a sample is one decision, of the class with the highest score; with several, every label is one.

    Args:
        scores: (S, classes), before softmax or sigmoid.
        target: (S,) class indices, or (S, classes) of 0 and 1.
    """
    if target.dim() == 1:
        probability, predicted = scores.double().softmax(dim=1).max(dim=1)
        return probability, predicted == target
    probability = scores.double().sigmoid()
    return torch.maximum(probability, 1 - probability).flatten(), ((probability > 0.5) == (target > 0.5)).flatten()


def negative_log_likelihood(scores: Tensor, target: Tensor) -> Tensor:
    """In nats; with several labels, the mean over the labels."""
    scores = scores.double()
    if target.dim() == 1:
        return F.cross_entropy(scores, target)
    return F.binary_cross_entropy_with_logits(scores, target.double())


def brier(scores: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of the probabilities, summed over classes for one label (Brier 1950), averaged for several."""
    scores = scores.double()
    if target.dim() == 1:
        return (scores.softmax(dim=1) - F.one_hot(target, scores.shape[1])).square().sum(dim=1).mean()
    return (scores.sigmoid() - target).square().mean()


def calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> Tensor:
    """ECE: the gap between confidence and accuracy over bins of equal width, weighted by size (Guo et al. 2017, eq. 3)."""
    number = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, number, confidence.double() - right.double())
    return gap.abs().sum() / len(confidence)


def fitted_temperature(scores: Tensor, target: Tensor) -> float:
    """The number that scores are divided by so that they are most likely (Guo et al. 2017, section 4.2): fit it on val."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(negative_log_likelihood(scores / 2.0**log_temperature, target))

    return float(2.0 ** minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-6}).x)


def calibration(scores: Tensor, target: Tensor) -> dict[str, float]:
    """ece, brier, nll, and accuracy on the share of decisions that are surest: accuracy_at_50, _80, _90 percent."""
    sure, right = confidence(scores, target)
    ranked = right[sure.argsort(descending=True, stable=True)].double()
    kept = {f"accuracy_at_{c:.0%}"[:-1]: float(ranked[: max(1, round(c * len(ranked)))].mean()) for c in COVERAGES}
    return {
        "ece": float(calibration_error(sure, right)),
        "brier": float(brier(scores, target)),
        "nll": float(negative_log_likelihood(scores, target)),
        "accuracy": float(ranked.mean()),
        **kept,
    }
