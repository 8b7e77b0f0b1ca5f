"""The Perceiver and Perceiver IO."""

from .decoder import PerceiverIO
from .perceiver import Perceiver

__all__ = ["Perceiver", "PerceiverIO"]
