"""Icons with tags and names, from the npm package @mdi/svg 7.4.47 (1 MB).

npm fetches the package, or it is given with --source. Icons without a tag and icons that its authors deprecate are left out.
Icons that share the first word of their names are in one split.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..core.datamodule import SplitName
from ..core.errors import UserError
from ..core.splits import split_by_name
from ..storage.shards import write_shards
from .iconify import fetch, files_of, reading
from .rendering import render
from .tags import TAGS, first_word

PACKAGE = "@mdi/svg@7.4.47"
LICENCE = "Pictogrammers Free License: icons are Apache-2.0, or under licences of their own that allow redistribution"
HELD_OUT: dict[SplitName, float] = {"test": 0.2, "val": 0.1}  # shares of the first words


class Tagged(NamedTuple):
    """One icon. Shards hash its repr, so its names are fixed."""

    name: str
    document: str
    tags: tuple[str, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, help="mdi-svg-7.4.47.tgz, if npm should not fetch it")
    parser.add_argument("--out", type=Path, default=Path("data/tags"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="height and width of the pictures (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        icons = read_package(options.source or fetch(PACKAGE, Path(scratch)))
    splits: dict[str, list[Tagged]] = {"train": [], "val": [], "test": []}
    for icon in icons:
        splits[split_by_name("tags", first_word(icon.name), HELD_OUT)].append(icon)
    manifest = write_shards(
        options.out,
        "tags",
        splits,
        partial(make_sample, side=options.side),
        made_with={"package": PACKAGE, "side": options.side},
        licence=LICENCE,
        workers=options.workers,
    )
    counts = ", ".join(f"{entry['written']:,} {name}" for name, entry in manifest["splits"].items())
    return f"{options.out}: icons with {len(TAGS)} tags, {counts}"


def read_package(path: Path) -> list[Tagged]:
    """The icons that have a tag and are not deprecated.

    Raises:
        UserError: it is not that package.
    """
    with reading(path, PACKAGE):
        files = dict(files_of(path, lambda name: name.endswith(".svg") or name == "package/meta.json"))
        icons = [
            Tagged(about["name"], files[f"package/svg/{about['name']}.svg"].decode(), tuple(about["tags"]))
            for about in json.loads(files["package/meta.json"])
            if about["tags"] and not about["deprecated"]
        ]
    if not icons:
        raise UserError(f"{path} holds no icon with a tag: pass {PACKAGE}, fetched with `npm pack`")
    return icons


def make_sample(icon: Tagged, side: int) -> dict:
    pixels = io.BytesIO()
    Image.fromarray(render(icon.document, side)).save(pixels, "PNG")
    about = {"labels": sorted(TAGS.index(tag) for tag in icon.tags), "tags": list(icon.tags)}
    return {"__key__": icon.name, "png": pixels.getvalue(), "json": about}
