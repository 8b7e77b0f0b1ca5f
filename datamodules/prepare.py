"""Prepare a data set for its datamodule, or inspect prepared data: `python -m datamodules.prepare NAME --out DIR`.

If preparation is interrupted, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from .core.errors import UserError
from .storage import lint

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
}


def main(args: list[str] | None = None) -> int:
    args = sys.argv[1:] if args is None else args
    parser = argparse.ArgumentParser("python -m datamodules.prepare", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="NAME")
    # imports only the module that is needed, or all of them for --help and for an unknown name
    requested = args[0] if args else ""
    for name in [requested] if requested in SETS else SETS if requested not in ("lint", "stats") else ():
        module = import_module(f"datamodules.{SETS[name]}")
        text = module.__doc__ or ""
        command = commands.add_parser(name, help=text.split("\n")[0], description=text, allow_abbrev=False)
        module.add_options(command)
        command.set_defaults(run=module.prepare)
    for name, text in (("lint", "check shards and print one line per problem"), ("stats", "print a table with counts")):
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument("folder", help="folder or URL of the shards", metavar="DIR")
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
