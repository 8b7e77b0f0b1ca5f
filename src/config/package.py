"""What this package is called, where its configs lie, and what its commands are called.

The package is `src` in a checkout (`python -m src.fit`) and `bytebench` where it is installed (`bytebench fit`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

NAME = __name__.partition(".")[0]
HOME = Path(__file__).parents[1]
# A wheel has the configs inside of the package, a checkout beside it
CONFIGS = next(path for path in (HOME / "configs", HOME.parent / "configs") if path.is_dir())
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
