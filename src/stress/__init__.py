"""How a finished run fails: damaged or missing inputs, and how much its probabilities are worth; and training on damage."""

from .callback import Corrupted

__all__ = ["Corrupted"]
