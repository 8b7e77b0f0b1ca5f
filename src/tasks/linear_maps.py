"""Linear maps from features to classes: many trained at once, many solved for at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from datamodules.core.order import epoch_order

ROWS = 8192  # of features in float64 at a time


def train_maps(
    features: Tensor,
    target: Tensor,
    classes: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int,
) -> list[nn.Linear]:
    """One linear map for each learning rate, all trained at once on the same steps, from zero.

    features: (S, D). target: (S,) or (S, classes). loss: of scores and targets of a step, (B,).
    """
    maps = [zero_map(features, classes) for _ in learning_rates]
    groups = [{"params": list(each.parameters()), "lr": rate} for each, rate in zip(maps, learning_rates, strict=True)]
    optimizer = SGD(groups, momentum=0.9)
    schedule = CosineAnnealingLR(optimizer, epochs * -(-len(features) // batch_size))
    for epoch in range(epochs):
        order = torch.tensor(epoch_order(len(features), seed=0, epoch=epoch), device=features.device)
        for rows in order.split(batch_size):
            optimizer.zero_grad()
            torch.stack([loss(each(features[rows]), target[rows]).mean() for each in maps]).sum().backward()
            optimizer.step()
            schedule.step()
    return maps


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
