"""The base of all kinds of modalities."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.errors import BadSampleError


class Value(NamedTuple):
    """A value of a table or the content of a file, the name that tells its format, and where its window lies, 0 to 1."""

    content: Any
    name: str
    position: float
    generator: torch.Generator | None  # of training; None in evaluation


class Kind:
    """Base class of the kinds."""

    suffixes: tuple[str, ...] = ()
    in_files = True  # whether a text in a table is the path of a file
    module: nn.Module

    def load(self, value: Value) -> tuple[Tensor, str | None]:
        """The compact tensor of one sample, and what was skipped of it (None if nothing)."""
        raise NotImplementedError


def as_bytes(value: Value) -> bytes:
    if not isinstance(value.content, bytes):
        raise BadSampleError(f"holds {type(value.content).__name__} instead of the content of a file")
    return value.content
