"""Put a data set where its datamodule looks for it, or look at what was put: `python -m datamodules.prepare NAME --out DIR`.

What is killed half-way goes on where it stood when called again.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from datamodules import lint
from datamodules.errors import UserError

# each is the module datamodules.sources.NAME
SETS = (
    "fashion_mnist",
    "dialpad",
    "imagenet",
    "audioset",
    "language_id",
    "garments_spoken",
    "modelnet40",
    "furniture",
    "coco",
    "composed",
)


def main(args: list[str] | None = None) -> int:
    args = sys.argv[1:] if args is None else args
    parser = argparse.ArgumentParser("python -m datamodules.prepare", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="NAME")
    # only what was asked for is imported; --help and a misspelt name ask for all
    asked = args[0] if args else ""
    for name in [asked] if asked in SETS else SETS if asked not in ("lint", "stats") else ():
        source = import_module(f"datamodules.sources.{name}")
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
        print("\n".join(findings) or f"{options.folder}: nothing to object to")
        return int(bool(findings))
    print(options.run(options))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
