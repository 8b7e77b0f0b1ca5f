"""Checks of options that are numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
        UserError: a number is outside, or is NaN.
    """
    for name, value in options.items():
        for number in numbers_in(value):
            if not low <= number <= high:
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
