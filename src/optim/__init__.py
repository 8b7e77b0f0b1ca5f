"""Learning-rate schedules, by the class paths that configs name."""

from .schedules import Constant, Cosine, Schedule, Step

__all__ = ["Constant", "Cosine", "Schedule", "Step"]
