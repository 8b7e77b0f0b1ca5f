"""One line for every error: which option or file, what was found, what to do."""

from __future__ import annotations

import argparse
import difflib
import errno
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from datamodules import UserError

# Options of the commands that take a config, beside those of data, model and trainer
OWN_OPTIONS = (
    "config",
    "seed_everything",
    "experiment",
    "cell",
    "suite",
    "runs_dir",
    "resume",
    "compile",
    "trust",
    "tags",
)
# Where class names are looked up that were written without their package
PACKAGES = ("datamodules", "src.tasks", "src.backbones", "src.optim", "timm.optim", "torch.optim")
# Parameters of constructors that no config gives
NO_OPTIONS = ("self", "args", "kwargs", "data_spec", "params", "defaults")
NOT_BUILT = "Does not validate against any"  # how jsonargparse begins when a constructor fails
LONGEST = 300
# What gloo and NCCL say when a rank is gone or waits in vain
DEAD_RANK = re.compile(r"connection (closed|reset|refused)|broken pipe|timed out|timeout|process exited|aborted", re.I)


def is_user_error(error: Exception) -> bool:
    """Whether the user can fix it: wrong options, configs or files, or values that a constructor refuses."""
    if isinstance(error, argparse.ArgumentError) or cause_of(error, UserError):
        return True
    if type(error).__name__ == "MisconfigurationException":  # Lightning's
        return True
    return isinstance(error, ValueError) and str(error).startswith((NOT_BUILT, "You selected an invalid"))


def one_line(error: Exception) -> str:
    """The line that tells the user most: jsonargparse nests its reasons, worker processes add their stack."""
    user_error = cause_of(error, UserError)
    if user_error is not None:
        text = str(user_error)
        return squeeze(text.rsplit("Error: ", 1)[-1] if "Traceback" in text else text)
    text = str(error)
    if isinstance(error, ValueError) and text.startswith(NOT_BUILT):
        *_, first = causes(error)
        return f"the config cannot be built ({shorten(squeeze(str(first)))}): change these options, or see --debug"
    return explain(text) or f"{shorten(squeeze(text)).rstrip('.:')}: see `--help`, or --debug for where it came from"


def external_failure(error: Exception) -> str | None:
    """The line for a failure from outside, such as a full disk, a dead worker or a dead rank; None for anything else."""
    again = "the same command with --resume auto goes on"
    for cause in causes(error):
        text = squeeze(str(cause))
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"nothing more can be written ({cause.strerror}{f', {cause.filename}' if cause.filename else ''}); {again}"
        if found := re.search(r"DataLoader worker \(pid\(?s?\)? ?(\d+)\).*", text):
            return (
                f"a data loading process died ({shorten(found[0])}), often for lack of memory: lower --data.num_workers; "
                f"{again}"
            )
        if isinstance(cause, RuntimeError) and DEAD_RANK.search(text):
            return f"another rank has died or does not answer ({shorten(text)}): see what it says; {again}"
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def cause_of(error: BaseException, kind: type) -> BaseException | None:
    return next((e for e in causes(error) if isinstance(e, kind)), None)


def explain(text: str) -> str | None:
    """What jsonargparse says, said shortly; None for what is not known here."""
    said = re.sub(r"^\s*Given value.*$", "", text, flags=re.MULTILINE)
    where = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', said)))
    classes = re.findall(r"given class_path '([^']+)'|Got value: Namespace\(class_path='([^']+)'", said)
    owner = "".join(classes[-1]) if classes else ""

    if found := re.search(r"Option '([^']+)' is not accepted", said):
        options = parameters(load(owner)) if owner else (*OWN_OPTIONS, "data", "model", "trainer")
        holder = f"{where}: {owner}" if owner else "the config"
        return f"{holder} has no option {found[1]!r}{suggest(found[1], options)}"
    if found := re.search(r"Group 'trainer' does not accept option '([^']+)'", said):
        return f"trainer has no option {found[1]!r}{suggest(found[1], parameters(trainer_class()))}"
    if found := re.search(r"unrecognized arguments: (\S+)", said):
        return unknown_option(found[1])
    if found := re.search(r"module '([^']+)' has no attribute '([^']+)'|No module named '([^']+)'", said):
        module, name = found[1] or "", found[2] or found[3]
        lacking = f"{module} has no" if module else "there is no module"
        return f"{where}: {lacking} {name!r}{nearest_class(module, name)}"
    if found := re.search(r"Expected a dot import path string: (\S+)", said):
        return f"{where}: {found[1]!r} is no class path{nearest_class('', found[1])}"
    if found := re.search(r"Import path (\S+) does not .* subclass of (\w+)|Expected '(\S+)' to be .* '(\w+)'>", said):
        path, base = found[1] or found[3], found[2] or found[4]
        return f"{where}: {path} is no {base}: give the class path of one"
    if found := re.search(r"arguments are required: (.+)", said):
        if owner:
            return f"{where}: {owner} needs {found[1]}: give it under init_args"
        return f"no {found[1].replace(', ', ' and no ')} given: name a config, such as --config configs/quickstart.yaml"
    if found := re.search(r"File does not exist: '([^']+)'", said):
        path = Path(found[1])
        beside = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        return f"--{where} {path} does not exist{suggest(path.name, beside)}"
    if "Not a valid subclass of" in said:
        return f"{where} has keys beside class_path and init_args, or lacks class_path: give it these two"
    if found := re.search(r"Problems parsing config:(.*)", said, re.DOTALL):
        return f"the config is not valid YAML ({shorten(squeeze(found[1]))}): fix it there"
    return wrong_value(where, text)


def wrong_value(where: str, text: str) -> str | None:
    """A value of the wrong type: which types jsonargparse tried, and what it got."""
    expected = re.findall(r"Expected an? (?:<class '([^']+)'>|typing\.Literal\[([^\]]+)\]|([^.\n]+))", text)
    kinds = ["none" if kind == ("NoneType", "", "") else "".join(kind).replace("'", "") for kind in expected]
    given = re.findall(r"Got value: ((?!Namespace)[^.\n]+(?:\.\d+)?)", text) or re.findall(r"Given value: (.*)", text)
    if not kinds or not given:
        return None
    outer = text.count("Problem with given class_path")  # each of these keys may be none, which comes last
    kinds = kinds[: len(kinds) - outer] or kinds
    return f"{where} is {shorten(given[0])!r}: give {shorten(' or '.join(dict.fromkeys(kinds)))}"


def unknown_option(argument: str) -> str:
    """For an argument that no option takes: the nearest one, also where only the group is missing."""
    if not argument.startswith("--"):
        return f"{argument!r} is not an option: options start with --, a list is one argument such as '[a, b]'"
    name = argument[2:].partition("=")[0]
    options = [*OWN_OPTIONS, *(f"trainer.{parameter}" for parameter in parameters(trainer_class()))]
    same = [option for option in options if option.rpartition(".")[2] == name]
    near = same or difflib.get_close_matches(name, options, n=1)
    return f"--{name} is no option: {f'did you mean --{near[0]}?' if near else 'see `--help`'}"


def parameters(owner: object) -> list[str]:
    """The options of a class: what its constructor takes, and those of its bases."""
    classes = owner.__mro__[:-1] if inspect.isclass(owner) else [owner] if callable(owner) else []
    names = (name for c in classes for name in inspect.signature(c).parameters)
    return [name for name in dict.fromkeys(names) if name not in NO_OPTIONS]


def trainer_class() -> Any:
    """Imported where it is asked for: commands without a config start without Lightning."""
    return load("lightning.Trainer")


def load(class_path: str) -> object:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def nearest_class(module: str, name: str) -> str:
    """`: did you mean ...?` with a whole class path."""
    packages = [import_module(module)] if module else [import_module(package) for package in PACKAGES]
    paths = {}
    for package in packages:
        names = [n for n, found in vars(package).items() if inspect.isclass(found)]
        names += [found.name for found in pkgutil.iter_modules(getattr(package, "__path__", ()))]
        paths |= {n: f"{package.__name__}.{n}" for n in names}
    near = difflib.get_close_matches(name, paths, n=1)
    return f": did you mean {paths[near[0]]}?" if near else ": give one with its package, such as datamodules.Digits"


def suggest(name: str, known: Iterable[str]) -> str:
    """`: did you mean ...?`, or what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f": did you mean {near[0]}?"
    return f": choose from {', '.join(known)}" if known else ": check its name"


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def shorten(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
