"""Reject configs that name code outside of trusted packages, so that configs of others are safe to run.

Building a config imports and calls whatever it names. Elsewhere, checkpoints are loaded as tensors and plain values only, and
tar members with absolute or parent paths are rejected (datamodules.storage.shards).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from datamodules import UserError

from .class_paths import current
from .package import NAME

PACKAGES = (NAME, "datamodules", "torch", "torchvision", "torchmetrics", "lightning", "timm")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def check_configs(args: Sequence[str]) -> None:
    """Checks the config files on a command line, and the files that they refer to.

    Args:
        args: the command line, where --trust lists further packages to trust.

    Raises:
        UserError: a file names code of a package that is not trusted, or contains the key `trust`.
    """
    files = [path for arg in args if (path := config_file(arg.partition("=")[2] if arg.startswith("--") else arg))]
    known = {*PACKAGES, *trusted_packages(args)}
    seen: set[Path] = set()
    while files:
        path = files.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue  # the parser reports it
        if isinstance(content, dict) and "trust" in content:
            raise UserError(
                f"{path} contains `trust`: remove it, and pass --trust yourself if you trust these packages"
            )
        for where, text in strings_in(content):
            if inner := config_file(text, path.parent):
                files.append(inner)
            package = current(text).partition(".")[0]
            if is_code(where, text) and package not in known:
                raise UserError(
                    f"{path}: {where} is {text}, from an untrusted package: if you trust it, add --trust '[{package}]'"
                )


def trusted_packages(args: Sequence[str]) -> list[str]:
    """The packages after --trust on the command line."""
    values = [
        word.partition("=")[2] or following
        for word, following in zip(args, [*args, ""][1:], strict=True)
        if word.partition("=")[0] == "--trust"
    ]
    return [name for value in values for name in re.findall(r"\w+", value)]


def config_file(text: str, folder: Path = Path()) -> Path | None:
    """The file that an option's value refers to, if any: the parser also reads the values of options from files."""
    if not text.endswith((".yaml", ".yml", ".json")):
        return None
    return next((path for path in (Path(text), folder / text) if path.is_file()), None)


def strings_in(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields the key path and value of every string in nested mappings and lists."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from strings_in(value, f"{where}.{key}" if where else str(key))
    elif isinstance(content, list):
        for value in content:
            yield from strings_in(value, where)
    elif isinstance(content, str):
        yield where, content


def is_code(where: str, text: str) -> bool:
    """Whether a string is a class path, or looks like the path of an importable object."""
    return DOTTED.fullmatch(text) is not None and (
        where.endswith("class_path") or find_spec(text.partition(".")[0]) is not None
    )
