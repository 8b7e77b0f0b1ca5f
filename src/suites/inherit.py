"""A suite that builds on another: `inherit: NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules import UserError

from ..config import documents
from ..config.error_messages import suggest

PART_BY_PART = ("matrix", "published", "published_for", "space")
OF_A_TABLE = ("columns", "prepare")  # see columns.py: of the table of several suites alone


def read_inherited(path: Path, heirs: tuple[Path, ...] = ()) -> Any:
    """The content of a suite's file, on that of the suite it inherits from.

    A key of the file takes the place of the base's; matrix, published, published_for and space do so name by name, and
    variants of the same name. A key without a value removes the base's.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or content.get("inherit") is None:
        return content
    base = content["inherit"]
    if not isinstance(base, str) or Path(base).name != base:
        raise UserError(f"{path}: inherit {base!r} should be the name of a suite beside this one")
    place = path.with_name(f"{base}.yaml")
    if place in (*heirs, path):
        raise UserError(f"{path}: inherit {base} leads back to {place.name}: a suite cannot build on itself")
    inherited = read_inherited(place, (*heirs, path))
    if not isinstance(inherited, dict):
        raise UserError(f"{place}: expected a mapping, found {inherited!r}")
    inherited = {key: value for key, value in inherited.items() if key not in OF_A_TABLE}
    found = {**inherited, **content}
    for key in PART_BY_PART:
        if isinstance(inherited.get(key), dict) and isinstance(content.get(key), dict):
            found[key] = {**inherited[key], **content[key]}
    if isinstance(inherited.get("variants"), list) and isinstance(content.get("variants"), list):
        named = {name_of(row): row for row in (*inherited["variants"], *content["variants"])}
        found["variants"] = list(named.values())
    return {key: value for key, value in found.items() if value is not None}


def name_of(row: Any) -> str:
    """What tells rows of variants apart; rows that are none are told later."""
    return str(row.get("name")) if isinstance(row, dict) else repr(row)


def read_yaml(path: Path) -> Any:
    if not path.is_file():
        beside = [found.name for found in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise UserError(f"there is no suite {path}{suggest(path.name, beside)}")
    return documents.read_yaml(path)
