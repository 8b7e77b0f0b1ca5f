"""The Perceiver."""

from .perceiver import Perceiver

__all__ = ["Perceiver"]
