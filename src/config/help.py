"""Help of `fit`: a first screen, the options of any class from its docstring, and lists of what there is to choose from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from textwrap import wrap
from typing import Any, get_args

from datamodules import UserError

from .error_messages import PACKAGES, load, nearest_class
from .package import CONFIGS, NAME, command_name, current
from .trust import how_to_trust, may_be_named, trusted_packages

FIRST_SCREEN = """usage: {fit} --config CONFIG [options]
       {fit} --variant SUITE/NAME [options]

Train the model of a config on its data, test it, and keep everything in a run folder.

  --config CONFIG              a YAML file, or the name of one that --list prints; later ones override earlier ones
  --variant SUITE/NAME         a variant of a suite instead, such as perceiver_ablations/cross8_start
  --seed_everything SEED       the seed of everything (default: 0)
  --resume auto                continue the run of this name where it was stopped, if there is one
  --experiment NAME, --cell NAME, --runs_dir FOLDER
                               where the run is kept: FOLDER/EXPERIMENT/CELL/seedSEED (default: runs/default/run/seed0)
  --trainer.max_epochs N       how long to train; also max_steps, max_time
  --trainer.accelerator NAME   cpu, gpu or auto; also devices, num_nodes, strategy (ddp, fsdp), precision
  --data.batch_size N          samples per step and rank; also data_dir, num_workers
  --model.optimizer.lr RATE    any option of the optimizer; also weight_decay, betas
  --compile true               torch.compile the backbone

Any value of the config can be changed like that: --model.backbone.init_args.num_latents 64
Also: --print_config (the whole config), --debug (stack traces), --tags '[a, b]' (in W&B), --suite FILE (published
values), --trust '[PACKAGE]' (lets configs name classes of a further package).

More help:
  --list                       configs and suites, one line each
  --model.help, --model.backbone.help, --data.help, --trainer.help
                               tasks, backbones and data sets, one line each; options of the trainer
  --data.help CLASS            options of one class, such as Digits, Perceiver or {name}.tasks.Classification
"""
BASES = {"datamodules": "datamodules.ByteArrayDataModule"}
BASES |= {"tasks": f"{NAME}.tasks.base.Task", "backbones": f"{NAME}.backbones.Backbone"}
SLOTS = {"model": "tasks", "model.backbone": "backbones", "data": "datamodules"}
NOT_SHOWN = ("self", "data_spec", "params", "args", "kwargs")
WIDTH, MOST_LINES = 100, 76
INDENT = {"initial_indent": " " * 6, "subsequent_indent": " " * 6}


def answer_help(args: Sequence[str]) -> bool:
    """Prints the help that a command line asks for, if it asks for any."""
    for number, arg in enumerate(args):
        option, _, value = arg.partition("=")
        if option in ("-h", "--help"):
            print(FIRST_SCREEN.format(fit=command_name("fit"), name=NAME), end="")
        elif option == "--list":
            print(*listing(), sep="\n")
        elif option.startswith("--") and option.endswith(".help"):
            name = value or next((word for word in args[number + 1 : number + 2] if not word.startswith("-")), "")
            print(*slot_help(option[2 : -len(".help")], name, trusted_packages(args)), sep="\n")
        else:
            continue
        return True
    return False


def listing() -> Iterator[str]:
    """A line for each config and suite."""
    for title, folder in (("configs", CONFIGS), ("suites", CONFIGS / "suites")):
        yield f"{title}:"
        for path in sorted(folder.glob("*.yaml")):
            comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
            yield line_of(path.stem, " ".join(comments[1:]))
    yield "data sets, tasks and backbones: --data.help, --model.help and --model.backbone.help list them"


def line_of(name: str, text: str) -> str:
    """A name and the first sentence of its description, cut to the width of a terminal."""
    sentence = re.split(r"(?<=[^ ][a-z0-9)%][.:]) |\n\n", text.replace("\n", " ") + " ")[0].rstrip(".: ")
    return shorten_to_width(f"  {name:<28} {sentence}")


def choices(package: str) -> dict[str, type]:
    """The classes of a package that fit its slot in a config."""
    module = import_module(package)
    base = load(BASES[package.removeprefix(f"{NAME}.")])
    kinds = {name: getattr(module, name) for name in dir(module) if name[0].isupper()}
    return {
        name: kind for name, kind in kinds.items() if inspect.isclass(kind) and issubclass(kind, base) and kind != base
    }


def slot_help(slot: str, name: str, trusted: Sequence[str]) -> Iterator[str]:
    """The options of a class; without a name, the classes that fit the slot."""
    if slot == "trainer":
        yield from class_help(find_class("lightning.Trainer"), "trainer")
    elif name:
        yield from class_help(find_class(name, trusted), slot)
    elif slot in SLOTS:
        package = SLOTS[slot] if slot == "data" else f"{NAME}.{SLOTS[slot]}"
        yield f"--{slot} is one of these; --{slot}.help CLASS prints the options of each:"
        yield from (line_of(name, inspect.getdoc(kind) or "") for name, kind in choices(package).items())
    else:
        raise UserError(f"--{slot}.help needs a class: pass its name or path, such as --{slot}.help torch.optim.AdamW")


def find_class(name: str, trusted: Sequence[str] = ()) -> type:
    """A class by its path, or by its name in our packages. Raises UserError with the nearest name if there is none."""
    module, _, last = current(name).rpartition(".")
    if module and not may_be_named(current(name), ("lightning", "timm", "torch", NAME, *trusted)):
        raise UserError(f"{name} is not imported for its help: {how_to_trust(name)}")
    for place in [module] if module else PACKAGES:
        try:
            found = getattr(import_module(place), last, None)
        except ModuleNotFoundError as error:
            raise UserError(f"{name}: there is no module {error.name!r}: check the path") from error
        if inspect.isclass(found):
            return found
    raise UserError(f"there is no class {name!r}{nearest_class(module, last)}")


def class_help(kind: type, slot: str) -> list[str]:
    """What a class is, then each option with its type, default and description; a line each where there are many."""
    from jsonargparse import ArgumentParser

    text = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    parser = ArgumentParser(add_help=False)
    parser.add_class_arguments(kind, "x", skip=set(NOT_SHOWN), fail_untyped=False)
    options = [
        (f"--{slot}.{action.dest[2:]} {type_name(action)}", described(action))
        for action in parser._actions
        if action.dest.startswith("x.") and not action.dest.endswith(".help")
    ]
    head = [f"{kind.__module__}.{kind.__qualname__}", *wrap(text, WIDTH), ""]
    whole = [line for name, told in options for line in (shorten_to_width(f"  {name}"), *wrap(told, WIDTH, **INDENT))]
    return head + (whole if len(whole) < MOST_LINES else [shorten_to_width(f"  {n}: {told}") for n, told in options])


def described(action: Any) -> str:
    """An option's description, with its default."""
    told = " ".join((action.help or "").split()).replace("``", "`")
    default = getattr(action.default, "as_dict", lambda: action.default)()
    if isinstance(default, dict) and set(default) == {"class_path"}:
        default = default["class_path"]
    return f"{told} (required)" if action.required else f"{told} (default: {default})"


def type_name(action: Any) -> str:
    """The type of an option in short: `int | None`, `Schedule | None`, `Backbone` for what makes one."""
    kind = getattr(action, "_typehint", None) or action.type
    name = kind.__name__ if inspect.isclass(kind) and not get_args(kind) else str(kind)
    name = re.sub(r"\b[a-z_]\w*\.", "", name)
    return re.sub(r"Callable\[\[.*?\], (\w+)\]", r"\1", name)


def shorten_to_width(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3].rsplit(' ', 1)[0]} ..."
