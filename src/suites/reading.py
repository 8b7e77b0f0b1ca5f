"""Values of a suite's file, checked as they are read."""

from __future__ import annotations

import math
import re
from typing import Any

from datamodules import UserError

from ..config.error_messages import suggest
from ..runs.results import Published

# A suite changes what is trained, not where runs are kept, whom they trust, nor what the command does instead
OPTION = re.compile(r"(data|model|trainer)(\.\w+)*\+?|compile|tags")


def read_keys(where: object, content: Any, needed: tuple[str, ...], others: tuple[str, ...]) -> dict:
    """A mapping that has all of the `needed` keys, and no keys but these and `others`."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected the keys {', '.join(needed + others)}, found {content!r}")
    for key in content:
        if key not in needed + others:
            raise UserError(f"{where} has the unknown key {key!r}{suggest(str(key), needed + others)}")
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"{where} lacks {missing[0]}: add it")
    return content


def read_mapping(where: str, content: Any) -> dict:
    """A mapping with names as keys; None is an empty one."""
    if not isinstance(content or {}, dict) or not all(isinstance(name, str) for name in content or {}):
        raise UserError(f"{where}: expected names with values, found {content!r}")
    return content or {}


def read_overrides(where: str, content: dict) -> dict[str, Any]:
    overrides = content.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise UserError(f"{where}: overrides {overrides!r} should map options to values")
    for option, value in overrides.items():
        read_option(where, option)
        if isinstance(value, str) and value.startswith("--"):
            raise UserError(f"{where}: {option} is {value!r}: a value does not start with --")
    return overrides


def read_option(where: str, option: object) -> str:
    """The name of an option that a suite may change."""
    if not OPTION.fullmatch(str(option)) or str(option).endswith(".help"):
        raise UserError(f"{where}: {option!r} is no option that a suite changes: name one of data, model or trainer")
    return str(option)


def read_published(where: str, content: Any) -> Published:
    """{metric: {version: value}}, checked."""
    figures = read_mapping(f"{where}, published", content)
    for metric, versions in figures.items():
        read_keys(f"{where}, {metric}", versions, (), ("v1", "v2"))
        if not all(type(value) in (int, float) and math.isfinite(value) for value in versions.values()):
            raise UserError(f"{where}: {metric} {versions} should be numbers")
    return figures
