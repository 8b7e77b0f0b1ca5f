"""Learning-rate schedules, as named in configs."""

from .schedules import Constant, Cosine, Schedule, Step

__all__ = ["Constant", "Cosine", "Schedule", "Step"]
