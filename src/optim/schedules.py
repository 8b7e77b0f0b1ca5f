"""Learning-rate schedules. For optimizers, configs name classes of torch and timm, such as `timm.optim.Lamb`.

A schedule maps training progress, from 0 to 1, to a factor of the learning rate, so a config works for any number of
epochs, steps and ranks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from datamodules import UserError
from datamodules.core.checks import check_range


class Schedule(ABC):
    """Base class of schedules, with linear warm-up from 0 to 1.

    Args:
        warmup: fraction of training, from 0 to below 1, in which the factor rises linearly from 0 to 1.

    Raises:
        UserError: `warmup` is out of range.
    """

    def __init__(self, warmup: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise UserError(f"warmup is {warmup}: pass a fraction of training, from 0 to below 1")
        self.warmup = warmup

    def __call__(self, step: int, total_steps: int) -> float:
        """Returns the factor for step `step` (from 0) of `total_steps`."""
        warmup_steps = self.warmup * total_steps
        if step < warmup_steps:
            return min(1.0, (step + 1) / warmup_steps)
        return self.factor(step / total_steps)

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Returns the factor after warm-up at `progress`, the fraction of training done."""


class Constant(Schedule):
    """A constant learning rate after warm-up.

    Args:
        warmup: fraction of training, from 0 to below 1, in which the factor rises linearly from 0 to 1.
    """

    def factor(self, progress: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Cosine decay from 1 at the end of warm-up to 0, where it stays.

    Args:
        warmup: fraction of training, from 0 to below 1, in which the factor rises linearly from 0 to 1.
    """

    def factor(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * (min(progress, 1.0) - self.warmup) / (1 - self.warmup)))


class Step(Schedule):
    """Multiplies the learning rate by `gamma` at every milestone.

    Args:
        milestones: fractions of training, between 0 and 1. The Perceiver's ImageNet recipe (epochs 84, 102 and 114 of
            120) is 0.7, 0.85, 0.95.
        gamma: what the learning rate is multiplied by at each milestone.
        warmup: fraction of training, from 0 to below 1, in which the factor rises linearly from 0 to 1.

    Raises:
        UserError: a milestone is not between 0 and 1.
    """

    def __init__(self, milestones: Sequence[float], gamma: float = 0.1, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        check_range(0, gamma=gamma)
        if any(not 0 < m < 1 for m in milestones):
            raise UserError(f"milestones are {list(milestones)}: pass fractions of training between 0 and 1")
        self.milestones, self.gamma = sorted(milestones), gamma

    def factor(self, progress: float) -> float:
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)
