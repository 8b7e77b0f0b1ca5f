"""Class paths of older versions, and of the package under its other name, as they are called here and now."""

from __future__ import annotations

from typing import Any

from .package import HOME, NAME

RENAMED = {"src.batch_norm.SettleBatchNorms": "src.training.SettleBatchNorms"}  # version 0.1
OURS = {path.stem for path in HOME.iterdir()}  # our sub-packages; another project may have a `src` of its own


def current(path: str) -> str:
    """A class path as it is called here: `src.tasks.X` and `bytebench.tasks.X` are the same class."""
    path = RENAMED.get(path, path)
    package, _, rest = path.partition(".")
    return f"{NAME}.{rest}" if package in ("src", "bytebench") and rest.partition(".")[0] in OURS else path


def current_word(word: str) -> str:
    """The same for a word of a command line, a class path or --option=PATH."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{current(value)}"


def with_current_class_paths(content: Any) -> Any:
    """A config, or a part of one, whose `class_path`s are today's."""
    if isinstance(content, list):
        return [with_current_class_paths(value) for value in content]
    if not isinstance(content, dict):
        return content
    return {
        key: current(value) if key == "class_path" and isinstance(value, str) else with_current_class_paths(value)
        for key, value in content.items()
    }
