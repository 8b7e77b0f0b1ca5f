"""The command `bytebench NAME`, the same as `python -m src.NAME` in a checkout."""

from __future__ import annotations

import sys
from importlib import import_module

from datamodules.core.signals import end_now, on_ending_signals

COMMANDS = {
    "fit": "train a variant of a benchmark and test it",
    "evaluate": "measure a finished run again",
    "suite": "run all variants of a table",
    "tune": "search options of all variants of a table alike",
    "compare": "compare finished runs",
    "submit": "check a run and add it to a folder of runs",
    "reproduce": "repeat a run and compare the bits",
    "export": "write a run's model as a program or a file of weights",
    "visualize": "draw pictures of a run",
    "benchmark": "measure speed side by side",
    "prepare": "prepare a data set, or inspect prepared data",
}


def main() -> None:
    """Runs the command that the first word names with the words after it."""
    on_ending_signals(end_now)
    from .config.command import run_command

    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        asked = name in ("-h", "--help")
        lines = ["usage: bytebench COMMAND [options]", "", *(f"  {n:<10} {text}" for n, text in COMMANDS.items()), ""]
        lines.append("`bytebench COMMAND --help` says more about each.")
        if asked:
            print(*lines, sep="\n")
            sys.exit()
        print(f"error: there is no command {name!r}: choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    if name == "prepare":
        run_command(lambda args: sys.exit(import_module("datamodules.prepare").main(args)))
    run_command(import_module(f".{name}", __package__).main)


if __name__ == "__main__":
    main()
