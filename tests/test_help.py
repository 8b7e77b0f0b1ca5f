"""Help: every option of every class that a config can name, and of every command, has a description.

Descriptions of classes are read as the parser reads them: from Google-style `Args:`, those of parents for what a constructor
passes on to them.
"""

import argparse
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy

import datamodules
import src
from datamodules import ByteArrayDataModule, Digits, prepare
from src.backbones import Backbone
from src.cli import ByteBenchCLI
from src.config import help as fit_help
from src.optim import Schedule
from src.tasks.base import Task
from tests.support import DIGITS, ROOT

EXPORTING = ("datamodules", "src.backbones", "src.optim", "src.pictures", "src.tasks", "src.training")
SLOTS = (Task, Backbone, Schedule, ByteArrayDataModule, L.Callback, Logger, Strategy)  # of configs, for classes of ours
PRELOAD = "src.suites.preload"  # changes how libraries are imported
NAMES = ("evaluate", "suite", "tune", "compare", "submit", "reproduce", "export", "visualize", "benchmark")
COMMANDS = {f"src.{name}": [] for name in NAMES} | {
    "src.fit": ["--config", DIGITS],
    "src.tables.__main__": [],
}
DEFAULT = re.compile(r"\(?default: [^)]*\)?")  # says nothing about the option itself


def named_class(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def subclasses(slot: type) -> Iterator[type]:
    for found in slot.__subclasses__():
        yield found
        yield from subclasses(found)


def public_classes() -> list[type]:
    """What our packages export, what configs name, and what fits a slot of a config: the parser offers it."""
    for package in (src, datamodules):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(("src.benchmarks.", PRELOAD)):
                import_module(module.name)
    found = {getattr(module, name) for module in map(import_module, EXPORTING) for name in module.__all__}
    texts = [path.read_text() for path in (ROOT / "configs").rglob("*.yaml")]
    named = {path for text in texts for path in re.findall(r"class_path:\s*((?:src|datamodules)\.[\w.]+)", text)}
    found |= {named_class(path) for path in named}
    found |= {
        kind for slot in SLOTS for kind in subclasses(slot) if kind.__module__.startswith(("src.", "datamodules."))
    }
    classes = {kind for kind in found if inspect.isclass(kind) and not issubclass(kind, Exception)}
    return sorted(classes, key=lambda kind: (kind.__module__, kind.__name__))


def class_options(kind: type) -> dict[str, str | None]:
    """From each option of a class to its description."""
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "made", fail_untyped=False)
    return {a.dest.removeprefix("made."): a.help for a in parser._actions if a.dest.startswith("made.")}


def undescribed(options: Iterable[argparse.Action]) -> list[str]:
    """Options without a description, those of sub-commands included."""
    found = []
    for option in options:
        if isinstance(option, argparse._SubParsersAction):
            for name, parser in option.choices.items():
                found += [f"{name} {missing}" for missing in undescribed(parser._actions)]
        elif not DEFAULT.sub("", option.help or "").strip():
            found.append(option.dest)
    return found


class Found(BaseException):
    """A command's parser, at the moment at which it would parse."""


def parser_of(main: Callable, args: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def parse(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise Found(parser)

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", parse)
        patched.setattr(argparse.ArgumentParser, "parse_known_args", parse)
        patched.setattr(ByteBenchCLI, "parse_arguments", lambda cli, parser, args: parse(parser))
        patched.setattr("src.suites.definition.expand_variant", list)  # has a parser of its own
        with pytest.raises(Found) as found:
            main(args)
    return found.value.args[0]


@pytest.mark.parametrize("kind", public_classes(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_option_of_a_public_class_has_a_description(kind):
    assert [name for name, text in class_options(kind).items() if not (text or "").strip()] == []


def test_public_classes_have_options_those_that_they_pass_on_included():
    options = class_options(Digits)
    assert {"classes", "permutation", "mixup", "batch_size", "max_bad_share"} <= set(options)
    assert len(public_classes()) > 40


def test_an_option_that_only_a_parent_without_it_describes_is_found():
    class Sharper(Digits):
        """Digits, sharper."""

        def __init__(self, sharpness: float = 1.0, **kwargs: int) -> None:
            super().__init__(**kwargs)

    assert [name for name, text in class_options(Sharper).items() if not text] == ["sharpness"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_a_description(name, monkeypatch):
    parser = parser_of(import_module(name).main, COMMANDS[name], monkeypatch)
    assert len(parser._actions) > 1  # --help, and options
    assert undescribed(parser._actions) == []


@pytest.mark.parametrize("name", [*prepare.SETS, *prepare.INSPECT])
def test_every_option_of_a_preparer_has_a_description(name, monkeypatch):
    (commands,) = parser_of(prepare.main, [name], monkeypatch)._subparsers._group_actions
    assert set(commands.choices) == {*prepare.SETS, *prepare.INSPECT}
    assert len(commands.choices[name]._actions) > 1
    assert undescribed(commands.choices[name]._actions) == []


@pytest.mark.parametrize(
    "kind", [*public_classes(), L.Trainer, torch.optim.AdamW], ids=lambda kind: f"{kind.__module__}.{kind.__name__}"
)
def test_the_help_of_a_class_names_every_option_and_fits_a_screen_or_two(kind):
    lines = list(fit_help.class_help(kind, "data"))
    assert len(lines) < 80
    assert max(map(len, lines)) <= 100
    options = [name for name in class_options(kind) if name not in ("data_spec", "params") and "." not in name]
    assert [name for name in options if f"--data.{name} " not in "\n".join(lines)] == []


@pytest.mark.parametrize("words", [["--help"], ["--list"], ["--model.help"], ["--data.help"], ["--trainer.help"]])
def test_a_first_screen_is_short(words, capsys):
    assert fit_help.answer_help(words)
    lines = capsys.readouterr().out.splitlines()
    assert 4 < len(lines) < 80
    assert max(map(len, lines)) <= 120


def listed(words: list[str], capsys) -> dict[str, str]:
    """Names and what is said of them."""
    fit_help.answer_help(words)
    lines = [line for line in capsys.readouterr().out.splitlines() if line[0] == " "]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_the_lists_have_every_config_suite_data_set_task_and_backbone(capsys):
    configs = {path.stem for folder in ("configs", "configs/suites") for path in (ROOT / folder).glob("*.yaml")}
    assert set(listed(["--list"], capsys)) == configs
    assert set(listed(["--data.help"], capsys)) >= {"Digits", "AudioSet", "Icons"}
    assert set(listed(["--model.help"], capsys)) >= {"Classification", "Regression"}
    backbones = listed(["--model.backbone.help"], capsys)
    assert set(backbones) >= {"Perceiver", "LambdaResNet"}
    assert not set(backbones) & {"Backbone", "LambdaLayer"}  # not for this slot
    assert all(backbones.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.help", "Classificatoin"], "did you mean src.tasks.Classification"),
        (["--model.help", "src.tsks.Classification"], "no module 'src.tsks'"),
        (["--model.optimizer.help"], "needs a class"),
    ],
)
def test_a_misspelt_class_is_told(words, said):
    with pytest.raises(datamodules.UserError, match=said):
        fit_help.answer_help(words)


def test_words_that_ask_for_no_help_are_left_alone():
    assert not fit_help.answer_help(["--config", DIGITS, "--trainer.max_epochs", "3"])
