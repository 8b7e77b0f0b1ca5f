"""Checks of options: numbers, and files to be read."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import UserError

MANY = 10**6  # more of anything that a model or a batch is built of is a slip of the keyboard


def check_range(low: float, high: float = math.inf, **options: Any) -> None:
    """Checks that numbers lie between two limits, which are allowed themselves.

    Args:
        low: the lowest number.
        high: the highest.
        options: by name: a number, a list or mapping of them, or None for an option that was left out.

    Raises:
        UserError: a number is outside, or is NaN or infinite.
    """
    for name, value in options.items():
        for number in numbers_in(value):
            if not (low <= number <= high and math.isfinite(number)):
                upper = f" to {high:,}" if high < math.inf else " or more"
                raise UserError(f"{name} is {value}: pass {low:,}{upper}")


def check_counts(**options: Any) -> None:
    """`check_range` from 1, for numbers of things that must be there."""
    check_range(1, MANY, **options)


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    for each in value if isinstance(value, list | tuple) else [value]:
        if each is not None:
            yield each


def check_is_file(path: Path) -> None:
    """Raises OSError where a path is there and is no plain file; to open a pipe would wait for a writer, perhaps for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file but a folder, a pipe or a device", str(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of a plain file. Raises OSError for anything else."""
    check_is_file(path)
    return path.read_bytes()
