"""Pictures of runs: samples with predictions, attention, receptive fields, training curves."""

from src.pictures.callback import Pictures

__all__ = ["Pictures"]
