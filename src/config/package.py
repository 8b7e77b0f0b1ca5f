"""What this package, its classes and its commands are called, and where its configs lie.

The package is `src` in a checkout (`python -m src.fit`) and `bytebench` where it is installed (`bytebench fit`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAME = __name__.partition(".")[0]
HOME = Path(__file__).parents[1]
# A wheel has the configs inside of the package, a checkout beside it
CONFIGS = next(path for path in (HOME / "configs", HOME.parent / "configs") if path.is_dir())
RENAMED = {"src.batch_norm.SettleBatchNorms": "src.training.SettleBatchNorms"}  # version 0.1
OURS = {path.stem for path in HOME.iterdir()}  # our sub-packages; another project may have a `src` of its own
CHECKOUT = HOME.parent if (HOME.parent / "pyproject.toml").is_file() else None


def command_name(command: str) -> str:
    """What the user types to start a command: `bytebench fit` or `python -m src.fit`."""
    installed = NAME == "bytebench" or Path(sys.argv[0]).stem == "bytebench"
    return f"bytebench {command}" if installed else f"python -m {NAME}.{command}"


def find_config(name: str, folder: str = "") -> str:
    """The path of a config. `quickstart` and `configs/quickstart.yaml` also find the one that ships with the package.

    Args:
        name: a path, or the name of a config that ships with the package.
        folder: of configs/, where a name is looked for.
    """
    relative = name.removeprefix("configs/").removesuffix(".yaml")
    shipped = [CONFIGS / f"{relative}.yaml", CONFIGS / folder / f"{relative}.yaml"]
    known = [path for path in shipped if path.is_file() and ".." not in path.parts]
    return name if Path(name).is_file() or not known else str(known[0])


def with_shipped_configs(words: Sequence[str]) -> list[str]:
    """A command line where each `--config NAME` has become a path."""
    found = list(words)
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--config" and equals:
            found[number] = f"--config={find_config(value)}"
        elif option == "--config" and number + 1 < len(words):
            found[number + 1] = find_config(words[number + 1])
    return found


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
