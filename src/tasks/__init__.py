"""Tasks: LightningModules of a backbone, a head, a loss and a metric."""

from src.tasks.classification import Classification
from src.tasks.detection import Detection
from src.tasks.linear_probe import LinearProbe

__all__ = ["Classification", "Detection", "LinearProbe"]
