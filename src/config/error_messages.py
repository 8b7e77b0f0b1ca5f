"""One-line error messages that name the option or file, the problem and the fix."""

from __future__ import annotations

import argparse
import difflib
import errno
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from datamodules import UserError
from datamodules.core.errors import missing_extra

from .package import NAME
from .signatures import TRAINER, parameters
from .trust import how_to_trust

# Options of the commands that take a config, besides data, model and trainer
COMMAND_OPTIONS = (
    "config",
    "seed_everything",
    "experiment",
    "cell",
    "suite",
    "variant",
    "runs_dir",
    "resume",
    "compile",
    "max_flops",
    "test",
    "trust",
    "tags",
)
# Searched for class names given without a package
PACKAGES = ("datamodules", f"{NAME}.tasks", f"{NAME}.backbones", f"{NAME}.optim", "timm.optim", "torch.optim")
CONSTRUCTOR_FAILED = "Does not validate against any"  # prefix of jsonargparse's message
MAX_LENGTH = 300
# What it says of a path that does not fit
PATHS = (
    errno.ENOENT,
    errno.EINVAL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what the system says of a full disk
# Messages of gloo and NCCL when a rank is dead or unresponsive
DEAD_RANK = re.compile(r"connection (closed|reset|refused)|broken pipe|timed out|timeout|process exited|aborted", re.I)


def is_user_error(error: Exception) -> bool:
    """Whether the user can fix it: invalid options, configs, files or constructor arguments."""
    if isinstance(error, argparse.ArgumentError) or cause_of(error, UserError):
        return True
    if missing_extra(error) is not None or path_problem(error) is not None:
        return True
    if type(error).__name__ == "MisconfigurationException":  # Lightning's
        return True
    return isinstance(error, ValueError) and (str(error).startswith(CONSTRUCTOR_FAILED) or said_by_lightning(error))


def said_by_lightning(error: Exception) -> bool:
    """Whether Lightning itself raised an error, as it does for options of the trainer that do not fit the data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("lightning.")


def one_line(error: Exception) -> str:
    """The most informative line, without jsonargparse's nested reasons and the stack traces of worker processes."""
    user_error = cause_of(error, UserError)
    if user_error is not None:
        text = str(user_error)
        return squeeze(text.rsplit("Error: ", 1)[-1] if "Traceback" in text else text)
    if found := missing_extra(error) or path_problem(error):
        return found
    text = str(error)
    if isinstance(error, ValueError) and text.startswith(CONSTRUCTOR_FAILED):
        *_, root = causes(error)
        return f"the config cannot be built ({shorten(squeeze(str(root)))}): change these options, or run with --debug"
    return (
        explain(text) or f"{shorten(squeeze(text)).rstrip('.:')}: see `--help`, or run with --debug for a stack trace"
    )


def path_problem(error: Exception) -> str | None:
    """The line for a file or folder that cannot be read or written; None for any other error."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.filename is not None and cause.errno in PATHS:
            return f"{cause.filename}: {cause.strerror}: name another path, or change its permissions"
    return None


def external_failure(error: Exception) -> str | None:
    """The line for an external failure, such as a full disk, a dead worker or a dead rank; None for any other error."""
    resume = "resume with the same command and --resume auto"
    for cause in causes(error):
        text = squeeze(str(cause))
        if isinstance(cause, OSError) and cause.errno in FULL:
            where = f", {cause.filename}" if cause.filename else ""
            return f"cannot write ({cause.strerror}{where}): free some space, then {resume}"
        if found := re.search(r"DataLoader worker \(pid\(?s?\)? ?(\d+)\).*", text):
            return (
                f"a data loading process died ({shorten(found[0])}), often because memory ran out: lower --data.num_workers, "
                f"then {resume}"
            )
        if isinstance(cause, RuntimeError) and DEAD_RANK.search(text):
            return f"another rank died or does not respond ({shorten(text)}): see its output, then {resume}"
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and the chain of errors that caused it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def cause_of(error: BaseException, kind: type) -> BaseException | None:
    return next((e for e in causes(error) if isinstance(e, kind)), None)


def explain(text: str) -> str | None:
    """Shortens a message of jsonargparse; None if it is not a known one."""
    message = re.sub(r"^\s*Given value.*$", "", text, flags=re.MULTILINE)
    where = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
    classes = re.findall(r"given class_path '([^']+)'|Got value: Namespace\(class_path='([^']+)'", message)
    owner = "".join(classes[-1]) if classes else ""

    if found := re.search(r"Option '([^']+)' is not accepted", message):
        options = parameters(owner) or () if owner else (*COMMAND_OPTIONS, "data", "model", "trainer")
        holder = f"{where}: {owner}" if owner else "the config"
        return f"{holder} has no option {found[1]!r}{suggest(found[1], options)}"
    if found := re.search(r"Group 'trainer' does not accept option '([^']+)'", message):
        return f"trainer has no option {found[1]!r}{suggest(found[1], parameters(TRAINER) or ())}"
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        return unknown_option(found[1])
    if found := re.search(r"Importing '([^']+)' is not allowed", message):
        return f"{where}: {found[1]} is none of the classes that a config may name: {how_to_trust(found[1])}"
    message = re.sub(r"No (\S+) attribute (\w+)", r"module '\1' has no attribute '\2'", message)  # lazy_loader's words
    if found := re.search(r"module '([^']+)' has no attribute '([^']+)'|No module named '([^']+)'", message):
        module, name = found[1] or "", found[2] or found[3]
        missing = f"{module} has no" if module else "there is no module"
        return f"{where}: {missing} {name!r}{nearest_class(module, name)}"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{where}: {found[1]!r} is not a class path{nearest_class('', found[1])}"
    if found := re.search(
        r"Import path (\S+) does not .* subclass of (\w+)|Expected '(\S+)' to be .* '(\w+)'>", message
    ):
        path, base = found[1] or found[3], found[2] or found[4]
        return f"{where}: {path} is not a {base}: pass the class path of one"
    if found := re.search(r"arguments are required: (.+)", message):
        if owner:
            return f"{where}: {owner} needs {found[1]}: add it under init_args"
        return f"{found[1].replace(', ', ' and ')} missing: pass a config, such as --config configs/quickstart.yaml"
    if found := re.search(r"File does not exist: '([^']+)'", message):
        path = Path(found[1])
        configs = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        return f"--{where} {path} does not exist{suggest(path.name, configs)}"
    if "Not a valid subclass of" in message:
        return f"{where} needs the keys class_path and init_args, and no others: fix it in the config"
    if found := re.search(r"Problems parsing config:(.*)", message, re.DOTALL):
        return f"the config is not valid YAML: fix it there ({shorten(squeeze(found[1]))})"
    return wrong_value(where, text)


def wrong_value(where: str, text: str) -> str | None:
    """The message for a value of the wrong type: what was given and which types are accepted."""
    expected = re.findall(r"Expected an? (?:<class '([^']+)'>|typing\.Literal\[([^\]]+)\]|([^.\n]+))", text)
    kinds = ["none" if kind == ("NoneType", "", "") else "".join(kind).replace("'", "") for kind in expected]
    given = re.findall(r"Got value: ((?!Namespace)[^.\n]+(?:\.\d+)?)", text) or re.findall(r"Given value: (.*)", text)
    if not kinds or not given:
        return None
    nested = re.search(r"val='?(.*?)'?\)$", given[0])  # of an option with dots
    value = nested[1] if nested and given[0].startswith("NestedArg") else given[0].partition(". Got value: ")[0]
    outer = text.count("Problem with given class_path")  # each enclosing key adds a final "none"
    kinds = kinds[: len(kinds) - outer] or kinds
    return f"{where} is {shorten(value)!r}: pass {shorten(' or '.join(dict.fromkeys(kinds)))}"


def unknown_option(argument: str) -> str:
    """The message for an unknown argument, with the nearest option, also if only its group is missing."""
    if not argument.startswith("--"):
        return f"{argument!r} is not an option: options start with --, and a list is one argument such as '[a, b]'"
    name = argument[2:].partition("=")[0]
    options = [*COMMAND_OPTIONS, *(f"trainer.{parameter}" for parameter in parameters(TRAINER) or ())]
    same = [option for option in options if option.rpartition(".")[2] == name]
    near = same or difflib.get_close_matches(name, options, n=1)
    return f"--{name} is not an option: {f'did you mean --{near[0]}?' if near else 'see `--help`'}"


def load(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def nearest_class(module: str, name: str) -> str:
    """`: did you mean ...?` with the full class path."""
    known = [sys.modules.get(module)] if module else [import_module(package) for package in PACKAGES]
    packages = [package for package in known if package is not None]
    paths = {}
    for package in packages:
        names = [name for name in dir(package) if name[0].isupper()]  # classes; dir() imports nothing
        names += [found.name for found in pkgutil.iter_modules(getattr(package, "__path__", ()))]
        paths |= {n: f"{package.__name__}.{n}" for n in names}
    near = difflib.get_close_matches(name, paths, n=1)
    return f": did you mean {paths[near[0]]}?" if near else ": pass a full path, such as datamodules.Digits"


def suggest(name: object, known: Iterable[str]) -> str:
    """`: did you mean ...?`, or the list of known names."""
    known = [str(each) for each in known]
    near = difflib.get_close_matches(str(name), known, n=1)
    if near:
        return f": did you mean {near[0]}?"
    return f": choose from {', '.join(known)}" if known else ": check its name"


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def shorten(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."
