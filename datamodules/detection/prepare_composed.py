"""Composed scenes with exact boxes and masks: digits or garments on a noisy background."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.datamodule import SPLITS


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("data/composed"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--of",
        choices=("digits", "garments"),
        default="digits",
        help="the objects: digits of scikit-learn, or garments of Fashion-MNIST (default: %(default)s)",
    )
    parser.add_argument(
        "--scenes",
        type=int,
        nargs=3,
        default=(2000, 200, 400),
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of scenes in each split (default: %(default)s)",
    )
    parser.add_argument(
        "--side", type=int, default=128, help="height and width of a scene in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--source", default="data/fashion_mnist", help="folder of Fashion-MNIST, for garments (default: %(default)s)"
    )


def prepare(options: argparse.Namespace) -> str:
    from .composed import Composed
    from .draw import save_picture

    data = Composed(str(options.out), options.of, tuple(options.scenes), options.side, options.source)
    data.prepare_data()
    (options.out / ".lock").unlink(missing_ok=True)  # left by a kill after the last annotations
    picture = options.out / "examples.png"
    save_picture(data, picture)
    sizes = [len(data.split(name).keys) for name in SPLITS]
    return f"{options.out}: {sum(sizes):,} scenes composed of {options.of}; examples with boxes and masks: {picture}"
