"""The matrix of a suite: every combination of its axes' choices is a variant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from datamodules import UserError

from .reading import read_keys, read_overrides

CHOICE = ("config", "overrides", "space")


def matrix_rows(path: Path, axes: Any, published: Any) -> Iterator[dict]:
    """Every combination of the axes' choices, in the form of a row of `variants`."""
    if not isinstance(axes, dict) or not all(isinstance(choices, dict) for choices in axes.values()):
        raise UserError(f"{path}: matrix should map axes to short names, and these to config and overrides")
    for axis, choices in axes.items():
        for name, choice in choices.items():
            where = f"{path}, matrix, {axis} {name!r}"
            if not isinstance(name, str):
                raise UserError(f"{where}: a short name should be a text: put it in quotes")
            read_overrides(where, read_keys(where, choice, (), CHOICE))
    rows = {}
    for combination in product(*(choices.items() for choices in reversed(axes.values()))) if axes else ():
        names, choices = zip(*reversed(combination), strict=True)
        row: dict[str, Any] = {"name": "_".join(filter(None, names))}
        for choice in choices:
            row |= choice | {"overrides": row.get("overrides", {}) | read_overrides("", choice)}
        rows[row["name"]] = row
    for name, figures in read_keys(f"{path}, published", published, (), tuple(rows)).items():
        rows[name]["published"] = figures
    yield from rows.values()


def with_backbone(path: Path, content: dict, class_path: str) -> dict:
    """A suite's content with one more choice on its axis of models: this backbone with its defaults, in the first choice's
    config. Its short name is the name of the class with underscores."""
    axes = content.get("matrix") or {}
    axis = next((name for name in ("model", "backbone") if isinstance(axes, dict) and name in axes), None)
    if axis is None or not isinstance(axes[axis], dict) or not axes[axis]:
        raise UserError(f"--add {class_path}: the matrix of {path} has no axis `model` to add it to: give it one")
    if not all(part.isidentifier() for part in class_path.split(".")) or "." not in class_path:
        raise UserError(f"--add {class_path}: pass the path of a class, such as my_package.MyBackbone")
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_path.rpartition(".")[2]).lower()
    if name in axes[axis]:
        raise UserError(f"--add {class_path}: {path} has a {axis} called {name}: rename the class")
    first = next(iter(axes[axis].values()))
    choice: dict[str, Any] = {"overrides": {"model.backbone": {"class_path": class_path}}}
    if isinstance(first, dict) and "config" in first:
        choice["config"] = first["config"]
    return content | {"matrix": axes | {axis: axes[axis] | {name: choice}}}
