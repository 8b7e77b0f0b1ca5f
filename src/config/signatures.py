"""The options of classes, read from their source: a misspelt option is told before torch is imported."""

from __future__ import annotations

import ast
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
# Constructor parameters that are not config options
NOT_OPTIONS = ("self", "args", "kwargs", "data_spec", "params", "defaults")


@cache
def parameters(class_path: str) -> tuple[str, ...] | None:
    """Options of a class: the parameters of its constructor and, if that takes **kwargs, of its bases. None if its source
    does not tell."""
    found = find_class(class_path)
    if found is None:
        return None
    module, tree, node = found
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            names = tuple(a.arg for a in (*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs))
            rest = inherited(module, tree, node) if item.args.kwarg else ()
            return None if rest is None else tuple(n for n in dict.fromkeys((*names, *rest)) if n not in NOT_OPTIONS)
    return None if node.decorator_list else inherited(module, tree, node)


def inherited(module: str, tree: ast.Module, node: ast.ClassDef) -> tuple[str, ...] | None:
    """The options of the bases of a class; None if one is unknown."""
    names: list[str] = []
    for base in node.bases:
        told = parameters(f"{module}.{base.id}") if isinstance(base, ast.Name) and base.id != "ABC" else ()
        if told is None:
            return None
        names += told
    return tuple(names) if names else None


def find_class(class_path: str) -> tuple[str, ast.Module, ast.ClassDef] | None:
    """The module, its syntax tree, and the definition of a class, also where the path names a re-export."""
    module, _, name = class_path.rpartition(".")
    source = find_source(module)
    tree = parse(source) if source else None
    if tree is None or source is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, tree, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return find_class(f"{imported_module(module, source, node)}.{alias.name}")
    return None


def imported_module(module: str, source: Path, node: ast.ImportFrom) -> str:
    """The whole name of the module that a module imports from."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    depth = node.level - (source.stem == "__init__")  # a package's first dot is itself
    return ".".join([*parts[: len(parts) - depth], *([node.module] if node.module else [])])


@cache
def find_source(module: str) -> Path | None:
    """The file of a module, found without importing it; the stub where a package has one."""
    top, *rest = module.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    spec = PathFinder.find_spec(top, sys.path)
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    places = (base / "__init__.pyi", base / "__init__.py", base.with_suffix(".py"))
    return next((place for place in places if place.is_file()), None)


@cache
def parse(source: Path) -> ast.Module | None:
    try:
        return ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None
