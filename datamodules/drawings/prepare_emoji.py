"""Emoji in nine open styles with their names in 108 languages, from the npm packages @iconify/json 2.2.535 (104 MB) and
cldr-annotations-full 48.2.0 (7 MB).

npm fetches the packages, or they are given with --source and --names. An emoji is in one split in all its styles.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..core.datamodule import SplitName
from ..core.errors import UserError
from ..core.splits import split_by_name
from ..storage.shards import write_shards
from .emoji import GROUPS, STYLES
from .iconify import PACKAGE, Icon, IconSet, fetch, files_of, read_sets, reading
from .rendering import render, svg

NAMES = "cldr-annotations-full@48.2.0"
NAMES_LICENCE = "Unicode-3.0"
GROUPED_BY = "noto"  # the style whose categories are Unicode's groups
FEWEST_NAMES = 1500  # of a language
HELD_OUT: dict[SplitName, float] = {"test": 0.25, "val": 0.15}  # shares of the emoji


class Drawing(NamedTuple):
    """One emoji in one style. Shards hash its repr, so its names are fixed."""

    icon: Icon
    emoji: str
    group: int
    names: tuple[tuple[str, str], ...]  # language and name


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, help="iconify-json-2.2.535.tgz, if npm should not fetch it")
    parser.add_argument("--names", type=Path, help="cldr-annotations-full-48.2.0.tgz, if npm should not fetch it")
    parser.add_argument(
        "--out", type=Path, default=Path("data/emoji"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--side", type=int, default=32, help="height and width of the pictures (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        styles = read_styles(options.source or fetch(PACKAGE, Path(scratch)))
        names = read_names(options.names or fetch(NAMES, Path(scratch)))
    splits: dict[str, list[Drawing]] = {"train": [], "val": [], "test": []}
    for drawing in drawings_of(styles, names):
        splits[split_by_name("emoji", drawing.emoji, HELD_OUT)].append(drawing)
    if not any(splits.values()):
        raise UserError(f"the packages share no emoji: pass {PACKAGE} and {NAMES}, fetched with `npm pack`")
    licences = {style: each.licence for style, each in styles.items()} | {"names": NAMES_LICENCE}
    manifest = write_shards(
        options.out,
        "emoji",
        splits,
        partial(make_sample, side=options.side),
        made_with={
            "packages": [PACKAGE, NAMES],
            "side": options.side,
            "languages": list(names),
            "licences": licences,
        },
        licence="of every style and of the names its own, see made_with",
        workers=options.workers,
    )
    counts = ", ".join(f"{entry['written']:,} {name}" for name, entry in manifest["splits"].items())
    emoji = {drawing.emoji for drawings in splits.values() for drawing in drawings}
    return f"{options.out}: {len(emoji):,} emoji in {len(styles)} styles and {len(names)} languages, {counts}"


def read_styles(path: Path) -> dict[str, IconSet]:
    with reading(path, PACKAGE):
        return read_sets(path, set(STYLES))


def read_names(path: Path) -> dict[str, dict[str, str]]:
    """Language -> code points as `code_points` writes them -> name, of the languages with at least FEWEST_NAMES names."""
    names: dict[str, dict[str, str]] = {}
    with reading(path, NAMES):
        for file, content in files_of(path, lambda name: name.endswith("/annotations.json")):
            found = json.loads(content).get("annotations", {}).get("annotations", {})
            if len(found) >= FEWEST_NAMES:
                named = {code_points(emoji): about["tts"][0] for emoji, about in found.items() if about.get("tts")}
                names[Path(file).parent.name] = named
    return dict(sorted(names.items()))


def code_points(emoji: str) -> str:
    """The code points in hexadecimal, without the selector that asks for a picture instead of a letter: 1f3f4-200d-2620."""
    return "-".join(f"{ord(character):x}" for character in emoji if character != "\ufe0f")


def drawings_of(styles: dict[str, IconSet], names: dict[str, dict[str, str]]) -> list[Drawing]:
    """Every emoji that has a name and a group, in every style that draws it.

    Some sets say which emoji an icon is, the others call it by the same title.
    """
    contents = {style: each.content for style, each in styles.items()}
    icons = {style: {icon.title: icon for icon in each.icons()} for style, each in styles.items()}
    groups: dict[str, Any] = contents.get(GROUPED_BY, {}).get("categories", {})
    group_of = {title: GROUPS.index(group) for group, titles in groups.items() if group in GROUPS for title in titles}
    found = []
    for emoji, title in contents.get(GROUPED_BY, {}).get("chars", {}).items():
        named = tuple((language, those[emoji]) for language, those in names.items() if emoji in those)
        if named and title in group_of:
            for style, content in contents.items():
                icon = icons[style].get(content.get("chars", {}).get(emoji, title))
                if icon is not None:
                    found.append(Drawing(icon, emoji, group_of[title], named))
    return found


def make_sample(drawing: Drawing, side: int) -> dict:
    icon, pixels = drawing.icon, io.BytesIO()
    Image.fromarray(render(svg(icon.body, *icon.box), side)).save(pixels, "PNG")
    about = {"label": drawing.group, "group": GROUPS[drawing.group], "names": dict(drawing.names)}
    return {"__key__": f"{icon.icon_set}/{drawing.emoji}", "png": pixels.getvalue(), "json": about}
