"""Moving digits with telephone tones, composed here of scikit-learn's digits; needs no source."""

from __future__ import annotations

import argparse
from pathlib import Path

from datamodules import dialpad
from datamodules.shards import finished


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("data/dialpad"))
    parser.add_argument("--clips", type=int, nargs=3, default=dialpad.CLIPS, metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--workers", type=int, default=2)


def prepare(options: argparse.Namespace) -> str:
    already = finished(options.out)
    dialpad.compose(options.out, options.clips, workers=options.workers)
    if already:
        return f"{options.out} has dialpad already"
    return f"{options.out}: {sum(options.clips):,} clips composed of scikit-learn's digits"
