"""The layers of the project: which room may import which. `make layers` draws them.

A room is a folder of src/ or datamodules/; the modules at the root of each are its commands. A room imports only rooms
below it, and no module imports itself through others.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from . import ROOT

# From the bottom up. Rooms of one layer do not import each other.
LAYERS = (
    ("datamodules.core",),
    ("datamodules.storage",),
    ("datamodules.images", "datamodules.sounds"),
    ("datamodules.clips", "datamodules.points", "datamodules.detection"),
    ("datamodules",),
    ("datamodules.declared", "datamodules.drawings"),
    ("src.config", "src.backbones", "src.optim", "src.metrics"),
    ("src.runs", "src.stats"),
    ("src.training", "src.suites"),
    ("src.tasks",),
    ("src.report", "src.pictures", "src.cli"),
    ("src.stress", "src.site"),
    ("src",),
    ("src.benchmarks", "src.tables"),
)
LAYER = {room: number for number, layer in enumerate(LAYERS) for room in layer}


def modules() -> dict[str, Path]:
    """Every module of both packages by its dotted name; a package's name stands for its __init__."""
    found = {}
    for path in sorted(p for package in ("datamodules", "src") for p in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> dict[str, set[str]]:
    """The modules that each module imports, wherever in the file it does."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*parents, *([node.module] if node.module else [])])
                targets = [(base, alias.name) for alias in node.names]
            else:
                continue
            for base, member in targets:
                target = f"{base}.{member}" if f"{base}.{member}" in known else base
                if target in known and target != name:
                    found[name].add(target)
    return found


def room_of(module: str) -> str:
    """The folder under the package's root; `src` and `datamodules` stand for what lies at the root itself."""
    room = ".".join(module.split(".")[:2])
    return room if room in LAYER else module.split(".")[0]


def arrows() -> dict[str, dict[str, int]]:
    """room -> room -> number of imports."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for module, targets in imports().items():
        for target in targets:
            if room_of(module) != room_of(target):
                found[room_of(module)][room_of(target)] += 1
    return found


def main() -> None:
    known, found = modules(), arrows()
    for number in reversed(range(len(LAYERS))):
        for room in LAYERS[number]:
            paths = [path for name, path in known.items() if room_of(name) == room and path.name != "__init__.py"]
            lines = sum(len(path.read_text().splitlines()) for path in paths)
            below = ", ".join(f"{target} {count}" for target, count in sorted(found[room].items(), key=lambda a: -a[1]))
            print(f"{number + 1:2d}  {room:22s} {len(paths):2d} files {lines:5,d} lines   -> {below or 'nothing'}")
        print("    " + "-" * 100) if number else None


if __name__ == "__main__":
    main()
