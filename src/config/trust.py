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


def check_configs(args: Sequence[str]) -> None:
    """Raises UserError if a file that the command line names, or one that such a file names, names code of other packages
    than these and those that the command line's own --trust lets in."""
    files = [path for arg in args if (path := config_file(arg.partition("=")[2] if arg.startswith("--") else arg))]
    known = {*PACKAGES, *trusted_of(args)}
    seen: set[Path] = set()
    while files:
        path = files.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue  # the parser says it better
        if isinstance(content, dict) and "trust" in content:
            raise UserError(f"{path} says itself what to trust: remove it there and, if you do, give --trust yourself")
        for where, text in strings_in(content):
            if inner := config_file(text, path.parent):
                files.append(inner)
            package = text.partition(".")[0]
            if is_code(where, text) and package not in known:
                raise UserError(
                    f"{path}: {where} is {text}, code of another package: if you trust it, add --trust '[{package}]'"
                )


def trusted_of(args: Sequence[str]) -> list[str]:
    """What --trust names on the command line."""
    words = [
        word.partition("=")[2] or following
        for word, following in zip(args, [*args, ""][1:], strict=True)
        if word.partition("=")[0] == "--trust"
    ]
    return [name for word in words for name in re.findall(r"\w+", word)]


def config_file(text: str, folder: Path = Path()) -> Path | None:
    """The file that an option's value may be: the parser reads options, too, from files that they name."""
    if not text.endswith((".yaml", ".yml", ".json")):
        return None
    return next((path for path in (Path(text), folder / text) if path.is_file()), None)


def strings_in(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text of nested mappings and lists, with its place."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from strings_in(value, f"{where}.{key}" if where else str(key))
    elif isinstance(content, list):
        for value in content:
            yield from strings_in(value, where)
    elif isinstance(content, str):
        yield where, content


def is_code(where: str, text: str) -> bool:
    """A class path, or a text that reads like the name of an importable object."""
    return DOTTED.fullmatch(text) is not None and (
        where.endswith("class_path") or find_spec(text.partition(".")[0]) is not None
    )
