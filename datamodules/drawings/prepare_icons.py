"""Icons of some 200 open icon sets as pixels, outlines and paths, from the npm package @iconify/json 2.2.535 (104 MB).

The package is fetched by npm, or given with --source. Sets whose licence forbids commercial use or is a GPL are left out. The
icons of a set are in one split: test and val have drawing styles that train has not.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.checks import check_is_file
from ..core.datamodule import SplitName
from ..core.errors import UserError
from ..core.splits import split_by_name
from ..storage.shards import write_shards
from .concepts import CONCEPTS
from .rendering import outline, path_bytes, render, svg

PACKAGE = "@iconify/json@2.2.535"
# SPDX names; without those that forbid commercial use, and GPL
OPEN = {
    *("Apache-2.0", "BSD-3-Clause", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "ISC", "MIT"),
    *("MPL-2.0", "OFL-1.1", "Unlicense"),
}
HELD_OUT: dict[SplitName, float] = {"test": 0.2, "val": 0.1}  # shares of the icon sets
CLASS = {name: number for number, name in enumerate(CONCEPTS)}
BOX = {"left": 0, "top": 0, "width": 16, "height": 16}  # with what holds where a set does not say

Icon = tuple[str, str, str, tuple[float, float, float, float]]  # set, name, body, left, top, width and height


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
        icons, licences = read_package(options.source or fetch(Path(scratch)))
    splits: dict[str, list[Icon]] = {"train": [], "val": [], "test": []}
    for icon in icons:
        splits[split_of(icon[0])].append(icon)
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


def fetch(folder: Path) -> Path:
    """The package, fetched by npm."""
    command = ["npm", "pack", PACKAGE, "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f"npm is not installed: fetch {PACKAGE} elsewhere with `npm pack`, and pass --source"
        ) from error
    found = list(folder.glob("*.tgz"))
    if done.returncode or not found:
        reason = " ".join(done.stderr.split())[:200]
        raise UserError(f"npm could not fetch {PACKAGE} ({reason}): fetch it elsewhere, and pass --source")
    return found[0]


def read_package(path: Path) -> tuple[list[Icon], dict[str, str]]:
    """The icons that draw one of the concepts, and the licence of every set that has one.

    Raises:
        UserError: it is not that package.
    """
    check_is_file(path)
    sets: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name == "package/collections.json" or member.name.startswith("package/json/"):
                    file = archive.extractfile(member)
                    content = json.loads(file.read()) if file is not None else {}
                    if member.name == "package/collections.json":
                        about = content
                    else:
                        sets[content["prefix"]] = content
        licences = {name: str(about[name]["license"].get("spdx")) for name in sorted(sets) if name in about}
        icons = [
            icon
            for name in licences
            if licences[name] in OPEN
            for icon in icons_of(name, sets[name])
            if icon[1] in CLASS
        ]
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path} is not {PACKAGE} ({reason}): fetch it with `npm pack {PACKAGE}`") from error
    if not icons:
        raise UserError(f"{path} holds no icon of an open set: pass {PACKAGE}, fetched with `npm pack`")
    return icons, {name: licences[name] for name in sorted({icon[0] for icon in icons})}


def icons_of(name: str, content: dict[str, Any]) -> list[Icon]:
    found = []
    for title, icon in content["icons"].items():
        if not icon.get("hidden"):
            left, top, width, height = (float(icon.get(key, content.get(key, usual))) for key, usual in BOX.items())
            found.append((name, title, str(icon["body"]), (left, top, width, height)))
    return found


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
