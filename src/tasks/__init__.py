"""Tasks: LightningModules of a backbone, a head, a loss and a metric."""

from .classification import Classification
from .detection import Detection
from .linear_probe import LinearProbe
from .regression import Regression

__all__ = ["Classification", "Detection", "LinearProbe", "Regression"]
