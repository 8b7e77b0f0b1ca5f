"""The space that tuning searches: options, and the values that each may have.

  space:
    model.optimizer.lr: {low: 0.001, high: 0.1, log: true}   # a range; int: true for whole numbers
    model.backbone.num_latents: [8, 16, 32]                   # a list of choices
All variants search spaces of one size: as many options, lists of as many choices, logarithmic ranges of equal ratio.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from datamodules import UserError

from .reading import read_keys, read_mapping, read_option

Space = dict[str, Any]  # option to a list of choices, or to low, high, log and int
EDGE = 0.05  # of a range, on either side


def read_space(where: str, content: Any) -> Space:
    """A space, checked."""
    found = read_mapping(f"{where}, space", content)
    for option, values in found.items():
        place = f"{where}, space, {read_option(where, option)}"
        if isinstance(values, list):
            if len(values) < 2 or any(isinstance(value, dict | list) for value in values):
                raise UserError(f"{place}: {values} should be a list of two or more plain values")
            continue
        read_keys(place, values, ("low", "high"), ("log", "int"))
        numbers = (values["low"], values["high"])
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise UserError(f"{place}: low and high should be numbers, not {numbers}")
        if not values["low"] < values["high"] or (values.get("log") and values["low"] <= 0):
            raise UserError(f"{place}: low should be below high, and above 0 on a logarithmic scale, not {numbers}")
    return found


def size(values: Any) -> str:
    """How large a part of a space is, in words."""
    if isinstance(values, list):
        return f"{len(values)} choices"
    if values.get("log"):
        return f"a range of 1 to {values['high'] / values['low']:.6g}"
    return f"{values['high'] - values['low'] + 1} numbers" if values.get("int") else "a linear range"


def check_equal_sizes(path: Path, spaces: dict[str, Space]) -> None:
    """Raises UserError where variants have spaces of different sizes, which would favour the larger one."""
    sizes = {name: sorted(map(size, space.values())) for name, space in spaces.items()}
    first = next(iter(sizes))
    for name, found in sizes.items():
        if found != sizes[first]:
            told = {variant: ", ".join(sizes[variant]) or "nothing" for variant in (name, first)}
            raise UserError(
                f"{path}: {name} would search {told[name]}, {first} {told[first]}: give all variants spaces of one size"
            )


def on_edge(values: Any, chosen: Any) -> bool:
    """Whether a chosen value lies where the space ends, so that a better one may lie beyond."""
    if isinstance(values, list):
        ordered = all(type(value) in (int, float) for value in values)
        return ordered and len(values) > 2 and chosen in (min(values), max(values))
    low, high, value = (float(number) for number in (values["low"], values["high"], chosen))
    if values.get("log"):
        low, high, value = map(math.log, (low, high, value))
    return not EDGE <= (value - low) / (high - low) <= 1 - EDGE
