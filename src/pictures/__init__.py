"""Pictures of runs: samples with predictions, attention, receptive fields, training curves."""

from .callback import Pictures

__all__ = ["Pictures"]
