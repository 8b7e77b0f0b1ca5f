"""A config is data: what it may have called is decided on what the parser resolved, before it is imported.

A config names classes. The parser accepts a class only where its base class is asked for: a Task as model, a Backbone in
it, an Optimizer, a Schedule, a Callback. Beyond that, a class must be a task, backbone, schedule or data set of ours, an
optimizer of torch or timm, one of CALLBACKS below, or of a package that the user trusts with --trust. Functions are never
called, whoever wrote them: not those of a trusted package, nor those that a module of ours has imported.

Elsewhere, checkpoints are loaded as tensors and plain values only, and tar members with absolute or parent paths are
rejected (datamodules.storage.shards).
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any

from datamodules import UserError

from .package import NAME

OURS = ("datamodules", *(f"{NAME}.{room}" for room in ("backbones", "optim", "tasks")))
OPTIMIZERS = ("torch.optim", "timm.optim")
# Callbacks and strategies. Others call functions that they are given, or write files wherever they are told
CALLBACKS = {
    f"{NAME}.pictures": {"callback": ["Pictures"]},
    f"{NAME}.stress": {"callback": ["Corrupted"]},
    f"{NAME}.training": {"batch_norm": ["SettleBatchNorms"]},
    "lightning.pytorch.callbacks": {
        "device_stats_monitor": ["DeviceStatsMonitor"],
        "early_stopping": ["EarlyStopping"],
        "gradient_accumulation_scheduler": ["GradientAccumulationScheduler"],
        "lr_monitor": ["LearningRateMonitor"],
        "model_summary": ["ModelSummary"],
        "rich_model_summary": ["RichModelSummary"],
        "stochastic_weight_avg": ["StochasticWeightAveraging"],
        "timer": ["Timer"],
        "weight_averaging": ["EMAWeightAveraging"],
    },
    "lightning.pytorch.strategies": {"ddp": ["DDPStrategy"]},
}
KNOWN = (
    *OURS,
    *OPTIMIZERS,
    *(
        path
        for package, modules in CALLBACKS.items()
        for module, names in modules.items()
        for name in names
        for path in (f"{package}.{name}", f"{package}.{module}.{name}")
    ),
)
PLAIN = (str, bytes, int, float, type(None), timedelta, PurePath, Enum)


def trusted_packages(args: Sequence[str]) -> list[str]:
    """The packages after --trust on the command line.

    Raises:
        UserError: one is no package's name, or jsonargparse, which decides what may be called.
    """
    values = [
        word.partition("=")[2] or following
        for word, following in zip(args, [*args, ""][1:], strict=True)
        if word.partition("=")[0] == "--trust"
    ]
    names = [name for value in values for name in re.findall(r"[^\s,\[\]'\"]+", value)]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")) or name.partition(".")[0] == "jsonargparse":
            raise UserError(f"--trust {name}: pass packages by name, such as --trust '[my_package]'")
    return names


@contextmanager
def importing_only(trusted: Iterable[str]) -> Iterator[None]:
    """Inside, the parser imports nothing for a config but what is known or trusted, by whatever name it is asked for it."""
    from jsonargparse import set_parsing_settings
    from jsonargparse._common import parsing_settings

    before = dict(parsing_settings)
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=[*KNOWN, *trusted],
        instantiate_subclass_spec_in_any=False,  # a class where anything is accepted stays text
    )
    try:
        yield
    finally:
        parsing_settings.update(before)


def check_config(config: Any, trusted: Sequence[str]) -> None:
    """Checks what the parser made of all configs and options, before anything is built of it.

    Args:
        config: the parsed options.
        trusted: packages of --trust.

    Raises:
        UserError: a config trusts packages itself, or has something else than plain values and classes that may be called.
    """
    if set(config["trust"]) - set(trusted):
        raise UserError("a config contains `trust`: remove it, and pass --trust yourself if you trust these packages")
    check_values("", config, trusted)


def check_values(where: str, value: Any, trusted: Sequence[str], in_code: Sequence[object] = ()) -> None:
    """Checks a value, or all in a list or mapping.

    Args:
        where: its key path.
        value: as the parser made it.
        trusted: packages of --trust.
        in_code: defaults of the class that the value is for; its code may use what a config may not name.
    """
    from jsonargparse import Namespace
    from jsonargparse.typing import Path

    if isinstance(value, Namespace | dict):
        found = vars(value) if isinstance(value, Namespace) else value
        if "class_path" in found:
            in_code = defaults(check_class(where, found["class_path"], trusted))
        for key, each in found.items():
            check_values(f"{where}.{key}".lstrip("."), each, trusted, in_code)
    elif isinstance(value, list | tuple | set):
        for each in value:
            check_values(where, each, trusted, in_code)
    elif not isinstance(value, (*PLAIN, Path)) and not any(value is default for default in in_code):
        called = getattr(value, "__qualname__", type(value).__name__)
        raise UserError(f"{where} is {called}: a config may name classes alone, not functions or objects")


def check_class(where: str, path: object, trusted: Sequence[str]) -> type:
    """The class of a class path. Raises UserError where it is none that may be called, under the name of its package."""
    module, _, name = str(path).rpartition(".")
    found = getattr(sys.modules.get(module), name, None)  # the parser has imported it
    if not inspect.isclass(found):
        raise UserError(f"{where}: {path} is not a class: a config may name classes alone, not functions or objects")
    home = f"{found.__module__}.{found.__qualname__}"
    if not may_be_named(home, trusted) or home.partition(".")[0] != module.partition(".")[0]:
        raise UserError(f"{where}: {path} is {home}: name it so, or {how_to_trust(home)}")
    return found


def defaults(kind: type) -> list[object]:
    """What the code of a class and its bases gives to options that no config sets."""
    signatures = [inspect.signature(each) for each in kind.__mro__[:-1] if "__init__" in vars(each)]
    return [parameter.default for signature in signatures for parameter in signature.parameters.values()]


def may_be_named(path: str, trusted: Sequence[str]) -> bool:
    """Whether the path of a class is known, or of a trusted package."""
    return f"{path}.".startswith(tuple(f"{known}." for known in (*KNOWN, *trusted)))


def how_to_trust(path: str) -> str:
    """What to do where a class is neither known nor trusted."""
    if near := difflib.get_close_matches(path.rpartition(".")[0], OURS, n=1, cutoff=0.8):
        return f"did you mean {near[0]}?"
    if path.partition(".")[0] in {*sys.stdlib_module_names, "jsonargparse", NAME}:
        return "remove it"
    return f"if you trust the classes of {path.partition('.')[0]}, add --trust '[{path.partition('.')[0]}]'"
