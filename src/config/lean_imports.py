"""Commands start in seconds: libraries are imported without optional parts that no command uses.

Wherever they are installed, torchmetrics imports transformers, torchvision, scipy.signal and matplotlib, and timm imports
wandb and huggingface_hub. That takes longer than everything else together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

UNUSED = {"torchmetrics": ("matplotlib", "scipy", "torchvision", "transformers"), "timm": ("huggingface_hub", "wandb")}


def import_lean() -> None:
    """From here on, the libraries of UNUSED are imported without these parts. For processes that run a command, not for a
    library: `metric.plot()` of torchmetrics, for one, does not work afterwards."""
    if not any(isinstance(finder, LeanFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LeanFinder())


class LeanFinder(MetaPathFinder):
    """Finds the libraries of UNUSED where Python does, and loads them with LeanLoader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in UNUSED else None
        if spec is not None and spec.loader is not None:
            spec.loader = LeanLoader(spec.loader, UNUSED[fullname])
        return spec


class LeanLoader(Loader):
    """Loads a library while other packages seem not to be installed."""

    def __init__(self, loader: Loader, unused: Sequence[str]) -> None:
        self.loader, self.unused = loader, unused

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with absent(self.unused):
            self.loader.exec_module(module)


@contextmanager
def absent(packages: Sequence[str]) -> Iterator[None]:
    """Inside, these packages cannot be imported unless they already are, and the checks of lightning_utilities say so."""
    imports: Any = import_module("lightning_utilities.core.imports")

    hidden = [name for name in packages if name not in sys.modules]
    available, check = imports.package_available, imports.RequirementCache._check_available
    asked = []

    def check_lean(self: Any) -> None:
        if str(self.requirement).partition(">")[0] in hidden:
            asked.append(self)
            self.available, self.message = False, f"{self.requirement} is not imported here"
        else:
            check(self)

    imports.package_available = lambda name: name not in hidden and available(name)
    imports.RequirementCache._check_available = check_lean
    modules: dict[str, Any] = sys.modules
    modules |= dict.fromkeys(hidden)  # None: an import raises ModuleNotFoundError
    try:
        yield
    finally:
        imports.package_available, imports.RequirementCache._check_available = available, check
        for name in hidden:
            del sys.modules[name]
        for cache in asked:  # asked again when it matters
            vars(cache).pop("available", None)
