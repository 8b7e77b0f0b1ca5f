"""Measure speed side by side: `python -m src.benchmark backbones`. CSV goes into results/, hardware in the file name."""

from __future__ import annotations

import argparse
from importlib import import_module

from .config.command import run_command

BENCHMARKS = {
    "backbones": "a training step of every backbone on the same batch",
    "lambda": "lambda layers beside convolution, attention and public lambda layers; whole ResNets; EfficientNets",
    "perceiver": "ours beside the public implementations that are installed, at three shapes",
    "input": "what loading costs beside the bare library calls that bound it",
    "overhead": "a training step through src.fit beside the same step in a bare loop; one process beside two",
    "scaling": "cost against the number of elements, Perceiver and self-attention on all of them",
}
MODULES = {"lambda": "lambda_layers"}  # where it is not the command's name


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m src.benchmark", description=__doc__, allow_abbrev=False)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, what in BENCHMARKS.items():
        one = names.add_parser(name, help=what, description=what, allow_abbrev=False)
        one.add_argument("--rounds", type=int, help="how often each case is timed")
        if name == "lambda":
            one.add_argument("--parts", nargs="+", help="some of layers, peers, networks, efficientnet")
        if name == "perceiver":
            one.add_argument("--shapes", nargs="+", help="some of small, audioset, imagenet, imagenet_2")
    options = vars(parser.parse_args(args))
    name = options.pop("name")
    module = import_module(f"src.benchmarks.{MODULES.get(name, name)}")
    module.run(**{key: value for key, value in options.items() if value is not None})


if __name__ == "__main__":
    run_command(main)
