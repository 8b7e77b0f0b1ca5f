"""Linear maps from features to classes, for many penalties: logistic and ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS

ROWS = 8192  # of features in float64 at a time
STEPS = 500  # of L-BFGS at most
FLAT = 1e-8  # largest gradient of a solution: in the coordinates of the search, that of the mean loss


class Fit(NamedTuple):
    """A map, and whether its training came to the minimum."""

    linear: nn.Linear
    converged: bool


@torch.enable_grad()
def train_maps(features: Tensor, target: Tensor, classes: int, penalties: Sequence[float]) -> list[Fit]:
    """Logistic regression for every penalty, by L-BFGS in float64, each started from that of the next larger penalty.

    Minimises the cross-entropy, summed over the examples, plus penalty times squared weights; with targets of several labels,
    the binary cross-entropies summed over examples and classes. The bias has no penalty. The search moves along the principal
    axes of the features, each scaled by a bound of the curvature there (Boehning 1992: half the squared features), so that it
    takes few steps however much the features depend on one another.

    Args:
        features: (S, D), of mean 0.
        target: (S,) or (S, classes).
        classes: number of classes.
        penalties: above 0, in any order.
    """
    squares = features.new_zeros(features.shape[1], features.shape[1], dtype=torch.float64)
    for x in features.split(ROWS):
        squares += x.double().T @ x.double()
    values, axes = torch.linalg.eigh(squares)
    projected = features.double() @ axes
    weight, bias = (features.new_zeros(*shape, dtype=torch.float64) for shape in ((classes, len(axes)), (classes,)))
    found: dict[float, Fit] = {}
    for penalty in sorted(penalties, reverse=True):
        scale = ((values.clamp(min=0) / 2 + 2 * penalty) / len(features)).rsqrt()
        weight, bias, converged = minimise(projected, target, penalty, scale, weight, bias)
        linear = zero_map(features, classes)
        with torch.no_grad():
            linear.weight.copy_(weight @ axes.T)
            linear.bias.copy_(bias)
        found[penalty] = Fit(linear, converged)
    return [found[penalty] for penalty in penalties]


def minimise(
    features: Tensor, target: Tensor, penalty: float, scale: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, bool]:
    """One search of `train_maps`, for weight / scale and bias. Returns the new weight and bias, and whether it converged."""
    moved, offset = (weight / scale).requires_grad_(), bias.clone().requires_grad_()
    search = LBFGS(
        [moved, offset],
        max_iter=STEPS,
        tolerance_grad=FLAT,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        search.zero_grad()
        scaled = moved * scale
        scores = torch.addmm(offset, features, scaled.T)
        if target.dim() == 1:
            losses = F.cross_entropy(scores, target, reduction="sum")
        else:
            losses = F.binary_cross_entropy_with_logits(scores, target.double(), reduction="sum")
        mean = (losses + penalty * scaled.square().sum()) / len(features)
        mean.backward()
        return mean

    search.step(objective)
    objective()  # the gradient where the search has ended
    steepest = max(float(x.grad.abs().max()) for x in (moved, offset) if x.grad is not None)
    return (moved * scale).detach(), offset.detach(), steepest <= FLAT


@torch.no_grad()
def solve_maps(features: Tensor, target: Tensor, penalties: Sequence[float]) -> list[nn.Linear]:
    """Ridge regression (Hoerl & Kennard 1970) for every penalty, of one eigendecomposition in float64.

    features: (S, D), of mean 0. target: (S, classes). The bias has no penalty.
    """
    width, classes = features.shape[1], target.shape[1]
    squares = features.new_zeros(width, width, dtype=torch.float64)
    products = features.new_zeros(width, classes, dtype=torch.float64)
    bias = target.double().mean(dim=0)
    for x, y in zip(features.split(ROWS), target.split(ROWS), strict=True):
        squares += x.double().T @ x.double()
        products += x.double().T @ (y.double() - bias)
    values, vectors = torch.linalg.eigh(squares)
    maps = []
    for penalty in penalties:
        solved = zero_map(features, classes)
        solved.weight.copy_((vectors @ ((vectors.T @ products) / (values + penalty)[:, None])).T)
        solved.bias.copy_(bias)
        maps.append(solved)
    return maps


def zero_map(features: Tensor, classes: int) -> nn.Linear:
    """On the features' device."""
    linear = nn.Linear(features.shape[1], classes, device=features.device)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear
