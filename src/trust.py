"""A config may come from a stranger: it can name only classes of packages that ByteBench is made of.

Building a config imports and calls what it names. Checkpoints hold tensors and plain values alone (`load_checkpoint`), tar
members with absolute or parent paths are refused (datamodules.shards); this is the third door.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from datamodules import UserError

PACKAGES = ("src", "datamodules", "torch", "torchvision", "torchmetrics", "lightning", "timm")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def check_configs(args: Sequence[str], trusted: Sequence[str] = ()) -> None:
    """Raises UserError if a file given with --config names code of other packages than these and the trusted ones."""
    for path in config_paths(args):
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError):
            continue  # the parser says it better
        if isinstance(content, dict) and "trust" in content:
            raise UserError(f"{path} says itself what to trust: remove it there and, if you do, give --trust yourself")
        for where, name in names_in(content):
            package = name.partition(".")[0]
            if package not in (*PACKAGES, *trusted):
                raise UserError(
                    f"{path}: {where} is {name}, code of another package: if you trust it, add --trust '[{package}]'"
                )


def config_paths(args: Sequence[str]) -> Iterator[Path]:
    for here, following in zip(args, [*args, ""][1:], strict=True):
        if here.startswith("--config="):
            yield Path(here.partition("=")[2])
        elif here == "--config":
            yield Path(following)


def names_in(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every class path, and every value that reads like the name of an importable object, with its place."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from names_in(value, f"{where}.{key}" if where else str(key))
    elif isinstance(content, list):
        for value in content:
            yield from names_in(value, where)
    elif isinstance(content, str) and DOTTED.fullmatch(content) and is_code(where, content):
        yield where, content


def is_code(where: str, name: str) -> bool:
    return where.endswith("class_path") or find_spec(name.partition(".")[0]) is not None
