"""Put a data set where its datamodule looks for it, or look at what was put: `python -m datamodules.prepare NAME --out DIR`.

What is killed half-way goes on where it stood when called again.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from .core.errors import UserError
from .storage import lint

# The module that prepares each data set: its docstring, `add_options` and `prepare`
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
}


def main(args: list[str] | None = None) -> int:
    args = sys.argv[1:] if args is None else args
    parser = argparse.ArgumentParser("python -m datamodules.prepare", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="NAME")
    # only what was asked for is imported; --help and a misspelt name ask for all
    asked = args[0] if args else ""
    for name in [asked] if asked in SETS else SETS if asked not in ("lint", "stats") else ():
        source = import_module(f"datamodules.{SETS[name]}")
        about = source.__doc__ or ""
        command = commands.add_parser(name, help=about.split("\n")[0], description=about, allow_abbrev=False)
        source.add_options(command)
        command.set_defaults(run=source.prepare)
    for name, about in (("lint", "check shards, one line per finding"), ("stats", "a table of what shards hold")):
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.add_argument("folder", help="the folder of the shards, or its URL", metavar="DIR")
    options = parser.parse_args(args)
    if options.command == "stats":
        lint.print_stats(options.folder)
        return 0
    if options.command == "lint":
        findings = list(lint.findings(Path(options.folder)))
        print("\n".join(findings) or f"{options.folder}: no problems found")
        return int(bool(findings))
    print(options.run(options))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
