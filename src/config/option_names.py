"""Check the option names of a command line before anything is imported, so that a misspelt one is told at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from datamodules import UserError

from .documents import read_yaml
from .error_messages import COMMAND_OPTIONS, suggest, unknown_option
from .package import current, find_config
from .signatures import TRAINER, parameters

# jsonargparse's own
KEYS = ("class_path", "init_args", "dict_kwargs", "help")
PARSER_OPTIONS = ("data", "model", "trainer", "print_config")


def check_option_names(words: Sequence[str]) -> None:
    """Raises UserError for an option that its class does not have. What cannot be told without importing is let pass: the
    parser, which follows, checks everything.

    Args:
        words: a command line of `fit`.
    """
    classes: dict[str, str] = {"trainer": TRAINER}  # option to the path of the class that it holds
    names = []
    for word, value in zip(words, [*words, ""][1:], strict=True):
        option, equals, given = word.removeprefix("--").partition("=")
        value = given if equals else value
        if option == "config":
            classes |= dict(classes_in(read(Path(find_config(value)))))
        elif word.startswith("--"):
            names.append(option)
            slot = option.replace(".init_args", "").removesuffix(".class_path")
            if slot in classes or "." in value:  # another class, with options of its own
                classes = {name: path for name, path in classes.items() if not f"{name}.".startswith(f"{slot}.")}
                classes[slot] = current(value)
    for name in names:
        parts = [part for part in name.removesuffix("+").split(".") if part != "init_args"]
        if len(parts) == 1 and parts[0] not in (*COMMAND_OPTIONS, *PARSER_OPTIONS):
            raise UserError(unknown_option(f"--{name}"))
        for depth, option in enumerate(parts):
            group = ".".join(parts[:depth])
            known = parameters(classes[group]) if group in classes else None
            if known is None or option in (*known, *KEYS):
                continue
            if group == "trainer":
                raise UserError(unknown_option(f"--{name}"))
            raise UserError(f"{group}: {classes[group]} has no option {option!r}{suggest(option, known)}")


def read(path: Path) -> object:
    """A config; nothing where the parser has an error to report."""
    try:
        return read_yaml(path)
    except UserError:
        return None


def classes_in(content: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields the option, and the class, of each class path in a config."""
    if not isinstance(content, dict):
        return
    if isinstance(content.get("class_path"), str):
        yield where, current(content["class_path"])
        content = content.get("init_args")
    for name, value in content.items() if isinstance(content, dict) else ():
        yield from classes_in(value, f"{where}.{name}" if where else str(name))
