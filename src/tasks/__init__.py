"""Tasks: LightningModules of a backbone, a head, a loss and a metric."""

from src.tasks.classification import Classification

__all__ = ["Classification"]
