"""Prepare a data set for its datamodule, or inspect prepared data: `python -m datamodules.prepare NAME --out DIR`.

If preparation is interrupted, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import ast
import sys
from importlib import import_module
from pathlib import Path

from .core.errors import Parser, UserError, missing_extra, one_line
from .core.signals import end_now, on_ending_signals

# The module that prepares each data set, with `add_options` and `prepare`; its docstring is the help
SETS = {
    "fashion_mnist": "images.prepare_fashion_mnist",
    "imagenet": "images.prepare_imagenet",
    "dialpad": "clips.compose_dialpad",
    "garments_spoken": "clips.compose_garments_spoken",
    "audioset": "clips.prepare_audioset",
    "language_id": "sounds.prepare_language_id",
    "modelnet40": "points.prepare_modelnet40",
    "furniture": "points.prepare_furniture",
    "coco": "detection.prepare_coco",
    "composed": "detection.prepare_composed",
    "icons": "drawings.prepare_icons",
    "emoji": "drawings.prepare_emoji",
    "tags": "drawings.prepare_tags",
    "adopt": "storage.adopt",
}
MOST = {"workers": 1000, "side": 10_000}
INSPECT = {
    "lint": "check shards and print one line per problem",
    "stats": "print a table with counts",
    "reindex": "write damaged or outdated indices anew from intact shards",
}


def main(args: list[str] | None = None) -> int:
    args = sys.argv[1:] if args is None else args
    parser = Parser("python -m datamodules.prepare", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="NAME")
    for name, module_name in SETS.items():
        text = docstring(module_name)
        command = commands.add_parser(name, help=text.split("\n")[0], description=text, allow_abbrev=False)
        if args[:1] == [name]:  # only what is asked for is imported: it may need packages that the others do not
            module = import_module(f"datamodules.{module_name}")
            module.add_options(command)
            command.set_defaults(run=module.prepare)
    for name, text in INSPECT.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument("folder", help="folder or URL of the shards", metavar="DIR")
    options = parser.parse_args(args)
    if options.command in INSPECT:
        return inspect(options.command, options.folder)
    from .storage.workers import disk_errors_explained

    check_counts(options)
    with disk_errors_explained(options.out):
        print(options.run(options))
    return 0


def check_counts(options: argparse.Namespace) -> None:
    """Raises UserError for a number of workers, samples, points or pixels below one, or beyond any use."""
    for name, value in vars(options).items():
        numbers, most = value if isinstance(value, (list, tuple)) else [value], MOST.get(name, 10**7)
        if name != "seed" and any(isinstance(number, int) and not 1 <= number <= most for number in numbers):
            said = " ".join(map(str, numbers))
            raise UserError(f"--{name.replace('_', '-')} {said}: use numbers from 1 to {most:,}")


def docstring(module: str) -> str:
    """The docstring of a module of this package, without importing it."""
    path = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def inspect(command: str, folder: str) -> int:
    """Checks, counts or indexes prepared data; returns the exit status."""
    from .storage import lint

    if command == "stats":
        lint.print_stats(folder)
        return 0
    if command == "reindex":
        from .storage import writer

        writer.reindex(Path(folder))
        print(f"{folder}: indices and manifest written")
        return 0
    findings = [one_line(finding) for finding in lint.findings(Path(folder))]
    print("\n".join(findings) or f"{folder}: no problems found")
    return int(bool(findings))


def run(args: list[str] | None = None) -> int:
    """`main`, with one line for an error that the user can fix."""
    try:
        return main(args)
    except (UserError, ModuleNotFoundError) as error:
        line = one_line(str(error)) if isinstance(error, UserError) else missing_extra(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    on_ending_signals(end_now)
    sys.exit(run())
