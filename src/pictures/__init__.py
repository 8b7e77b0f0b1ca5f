"""Pictures of runs: samples with predictions, attention maps, receptive fields and training curves."""

from .callback import Pictures

__all__ = ["Pictures"]
