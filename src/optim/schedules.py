"""Learning-rate schedules. Optimizers come from torch and timm by class_path: `timm.optim.Lamb`, `torch.optim.AdamW`.

A schedule maps the share of training done, from 0 to 1, to a factor of the learning rate, so that one config fits any
number of epochs, steps and ranks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from datamodules import UserError


class Schedule(ABC):
    """warmup: share of training during which the factor rises in a line from 0 to 1."""

    def __init__(self, warmup: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise UserError(f"warmup {warmup} is not a share of training: give a number from 0 to below 1")
        self.warmup = warmup

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor of the learning rate for step `step` (from 0) of `total_steps`."""
        warmup_steps = self.warmup * total_steps
        if step < warmup_steps:
            return min(1.0, (step + 1) / warmup_steps)
        return self.factor(step / total_steps)

    @abstractmethod
    def factor(self, done: float) -> float:
        """The factor after warm-up, `done` being the share of training done."""


class Constant(Schedule):
    """The full rate after warm-up."""

    def factor(self, done: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1, at the end of warm-up, to 0."""

    def factor(self, done: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))


class Step(Schedule):
    """Times gamma at every milestone, given as a share of training: Perceiver's ImageNet recipe is 84, 102 and 114 of 120
    epochs, so 0.7, 0.85 and 0.95."""

    def __init__(self, milestones: Sequence[float], gamma: float = 0.1, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        if any(not 0 < m < 1 for m in milestones):
            raise UserError(f"milestones {list(milestones)} are not shares of training: give numbers between 0 and 1")
        self.milestones, self.gamma = sorted(milestones), gamma

    def factor(self, done: float) -> float:
        return self.gamma ** sum(done >= milestone for milestone in self.milestones)
