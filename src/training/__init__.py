"""Training: checkpoints, progress, energy, strategies and batch normalisation."""

from .batch_norm import SettleBatchNorms

__all__ = ["SettleBatchNorms"]
