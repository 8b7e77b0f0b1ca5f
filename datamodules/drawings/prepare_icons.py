"""Icons of some 200 open icon sets as pixels, outlines and paths, from the npm package @iconify/json 2.2.535 (104 MB).

The package is fetched by npm, or given with --source. Sets whose licence forbids commercial use or is a GPL are left out. The
icons of a set are in one split: test and val have drawing styles that train has not.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.datamodule import SplitName
from ..core.errors import UserError
from ..core.splits import split_by_name
from ..storage.shards import write_shards
from .concepts import CONCEPTS
from .iconify import PACKAGE, Icon, fetch, read_sets, reading
from .rendering import outline, path_bytes, render, svg

HELD_OUT: dict[SplitName, float] = {"test": 0.2, "val": 0.1}  # shares of the icon sets
CLASS = {name: number for number, name in enumerate(CONCEPTS)}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, help="iconify-json-2.2.535.tgz, if npm should not fetch it")
    parser.add_argument(
        "--out", type=Path, default=Path("data/icons"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--side", type=int, default=32, help="height and width of the pictures (default: %(default)s)")
    parser.add_argument("--points", type=int, default=256, help="points of an outline (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        icons, licences = read_package(options.source or fetch(PACKAGE, Path(scratch)))
    splits: dict[str, list[Icon]] = {"train": [], "val": [], "test": []}
    for icon in icons:
        splits[split_of(icon.icon_set)].append(icon)
    manifest = write_shards(
        options.out,
        "icons",
        splits,
        partial(make_sample, side=options.side, points=options.points),
        made_with={"package": PACKAGE, "side": options.side, "points": options.points, "licences": licences},
        licence="of every icon set its own, see made_with",
        workers=options.workers,
    )
    counts = ", ".join(f"{entry['written']:,} {name}" for name, entry in manifest["splits"].items())
    unreadable = sum(entry["unreadable"] for entry in manifest["splits"].values())
    return f"{options.out}: {len(CONCEPTS)} concepts of {len(licences)} icon sets, {counts}, {unreadable} not drawable"


def read_package(path: Path) -> tuple[list[Icon], dict[str, str]]:
    """The icons that draw one of the concepts, and the licence of every set that has one.

    Raises:
        UserError: it is not that package.
    """
    with reading(path, PACKAGE):
        sets = read_sets(path)
        icons = [icon for each in sets.values() for icon in each.icons() if icon.title in CLASS]
    if not icons:
        raise UserError(f"{path} holds no icon of an open set: pass {PACKAGE}, fetched with `npm pack`")
    return icons, {name: sets[name].licence for name in sorted({icon.icon_set for icon in icons})}


def split_of(icon_set: str) -> SplitName:
    """The split of an icon set."""
    return split_by_name("icons", icon_set, HELD_OUT)


def make_sample(icon: Icon, side: int, points: int) -> dict:
    name, title, body, box = icon
    document = svg(body, *box)
    pixels, traced = io.BytesIO(), io.BytesIO()
    Image.fromarray(render(document, side)).save(pixels, "PNG")
    np.save(traced, outline(document, points))
    return {
        "__key__": f"{name}/{title}",
        "png": pixels.getvalue(),
        "npy": traced.getvalue(),
        "txt": path_bytes(body),
        "json": {"label": CLASS[title], "set": name, "concept": title},
    }
