"""YAML and JSON that strangers wrote: read with limits on size, depth and aliases. What breaks one is told in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from datamodules import UserError
from datamodules.core.checks import check_is_file

LARGEST_YAML, LARGEST_JSON = 1_000_000, 64_000_000  # bytes; data.json has the classes, the counts of large data sets
DEEPEST = 50
MOST_NODES = 100_000  # of YAML, with every alias written out
CSafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TAGS = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq"))}
FLOAT = r"[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"


class Loader(CSafeLoader):
    """Plain values alone: dates stay text, 1e-3 is a number, and limits are checked before anything is built."""

    yaml_implicit_resolvers: ClassVar = {
        letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for letter, resolvers in CSafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        check_limits(text)
        super().__init__(text)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key in keys if keys.count(key) > 1][:1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> int | float:
        construct = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        try:
            return construct(node)
        except ValueError as error:  # thousands of digits, or !!int of a word
            raise yaml.constructor.ConstructorError(None, None, "this is not a number", node.start_mark) from error


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{FLOAT})\Z"), list("-+.0123456789"))
for kind in ("int", "float"):
    Loader.add_constructor(f"tag:yaml.org,2002:{kind}", Loader.construct_number)


def check_limits(text: str) -> None:
    """Raises YAMLError where a document is too large, too deep, contains itself, or has tags of other than plain values."""
    if len(text) > LARGEST_YAML:
        raise yaml.YAMLError(f"it is larger than {LARGEST_YAML:,} characters")
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = [(None, 0)]  # anchors and sizes of the collections around an event
    for event in yaml.parse(text, Loader=CSafeLoader):
        if getattr(event, "tag", None) not in TAGS:
            raise yaml.YAMLError(f"the tag {event.tag} is not allowed")
        anchor, size = event.anchor if isinstance(event, yaml.NodeEvent) else None, 0
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((anchor, 1))
            if len(opened) > DEEPEST:
                raise yaml.YAMLError(f"it is nested more than {DEEPEST} deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value) // 100
        elif isinstance(event, yaml.AliasEvent):
            if any(around == anchor for around, _ in opened):
                raise yaml.YAMLError(f"the alias *{anchor} stands inside of what it names")
            size = sizes.get(anchor or "", 0)
        if anchor is not None:
            sizes[anchor] = size
        around, before = opened[-1]
        opened[-1] = (around, before + size)
        if before + size > MOST_NODES:
            raise yaml.YAMLError(f"it has more than {MOST_NODES:,} values, aliases written out")


def load_yaml(text: str) -> Any:
    """What a YAML document holds. Raises YAMLError where it is not valid, or breaks a limit."""
    return yaml.load(text, Loader=Loader)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: it cannot be read, is not valid YAML, or breaks a limit.
    """
    try:
        return load_yaml(read_text(path, LARGEST_YAML))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}): fix it there") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it cannot be read, is not valid JSON, or breaks a limit.
    """
    text = read_text(path, LARGEST_JSON)
    try:
        content = json.loads(text)
        check_values(content)
    except (ValueError, RecursionError) as error:
        deep, told = f"it is nested more than {DEEPEST} deep", " ".join(str(error).split(":")[0].split())
        reason = deep if isinstance(error, RecursionError) else told
        raise UserError(
            f"{path} is not JSON that can be read ({reason}): train the run again, or leave it out"
        ) from error
    return content


def check_values(content: Any) -> None:
    """Raises RecursionError where lists and mappings are nested too deep, UnicodeError where text is no Unicode."""
    level = [content]
    for _ in range(DEEPEST):
        for each in level:
            if isinstance(each, str) and not each.isascii():
                each.encode()  # half a surrogate pair is neither shown nor written
        level = [value for each in level for value in inside(each)]
        if not level:
            return
    raise RecursionError


def refuse_pipes(content: Any) -> None:
    """Raises UserError where a text in options or a config names a pipe: a parser that opens it waits, perhaps for ever."""
    for each in inside(content):
        refuse_pipes(each)
    if isinstance(content, str) and is_pipe(content):
        raise UserError(f"{content} is a pipe: name a file")


def is_pipe(name: str) -> bool:
    try:
        return Path(name).is_fifo()
    except OSError:  # too long for a name
        return False


def inside(value: Any) -> list:
    """What a mapping or a list holds; nothing for other values."""
    return [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def read_text(path: Path, largest: int) -> str:
    """The text of a file in UTF-8. Raises UserError where it is none, cannot be read, or is larger than `largest` bytes."""
    try:
        check_is_file(path)
        if path.stat().st_size > largest:
            raise UserError(f"{path} is larger than {largest / 1e6:.0f} MB: it is not what it should be")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: save it as that") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path} cannot be read ({reason}): check the path") from error
