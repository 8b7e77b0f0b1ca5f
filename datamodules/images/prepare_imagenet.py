"""ImageNet as shards, from your folder with train/CLASS/*.JPEG and val (see datamodules/images/image_folder.py)."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..core.checks import read_bytes
from ..core.errors import UserError, decoding
from ..storage.shards import write_shards
from . import image_folder, transforms

LICENCE = "ImageNet's terms of access: for non-commercial research and education"
IMAGES_PER_SHARD = 2000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="folder with train and val")
    parser.add_argument(
        "--out", type=Path, default=Path("data/imagenet"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--side",
        type=int,
        help="resize the short side to this length, such as 256; by default files are kept unchanged",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    if not (options.source / "train").is_dir():
        raise UserError(
            f"{options.source} has no folder train: set --source to the folder with train/CLASS/*.JPEG and val"
        )
    classes = image_folder.class_names(options.source)
    manifest = write_shards(
        options.out,
        "imagenet",
        image_folder.list_splits(options.source, classes),
        partial(make_sample, source=options.source, side=options.side, classes=classes),
        made_with={"classes": classes, "side": options.side},
        licence=LICENCE,
        samples_per_shard=IMAGES_PER_SHARD,
        workers=options.workers,
    )
    counts = [f"{entry['written']:,} {name}" for name, entry in manifest["splits"].items()]
    unreadable = sum(entry["unreadable"] for entry in manifest["splits"].values())
    return f"{options.out}: {' + '.join(counts)} images of {len(classes):,} classes, {unreadable:,} unreadable"


def make_sample(picture: image_folder.Picture, source: Path, side: int | None, classes: list[str]) -> dict:
    content = read_bytes(source / picture.path)
    with decoding(picture.path):
        decoded = transforms.decode_image(content)
    if side is not None:
        content = transforms.encode_jpeg(transforms.shrink(decoded, side))
    return {"__key__": picture.key, "jpg": content, "json": {"label": picture.label, "class": classes[picture.label]}}
