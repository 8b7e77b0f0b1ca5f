"""Language identification: Asterisk's spoken prompts in five languages, from their Debian packages or a folder."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from ..core.checks import read_bytes
from ..core.datamodule import SplitName
from ..core.errors import TooShort, UserError, decoding
from ..core.splits import split_by_name
from ..storage.debian import unpack
from ..storage.shards import write_shards
from .language_id import LANGUAGES, RATE
from .sound import read_sound

PACKAGES = tuple(f"asterisk-core-sounds-{code}-wav" for code in LANGUAGES)
INSTALLED = Path("/usr/share/asterisk/sounds")
LICENCE = "CC BY 3.0 and CC BY-SA 3.0, see the copyright files of asterisk-core-sounds"
HELD_OUT: dict[SplitName, float] = {"test": 0.2, "val": 0.1}  # shares of the prompts

Prompt = tuple[str, str]  # language and name


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        default="debian",
        help="debian (default), or a folder with the folders en, es, fr, it and ru (or en_...)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/language_id"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        if options.source != "debian":
            source = Path(options.source)
        elif len(language_folders(INSTALLED)) == len(LANGUAGES):
            source = INSTALLED
        else:
            unpack(PACKAGES, Path(scratch))
            source = Path(scratch) / INSTALLED.relative_to("/")
        folders = language_folders(source)
        if missing := [code for code in LANGUAGES if code not in folders]:
            raise UserError(
                f"{source} has no folder {' or '.join(missing)}: set --source to one with all five languages"
            )
        prompts = [
            (code, str(path.relative_to(folder).with_suffix("")))
            for code, folder in folders.items()
            for path in sorted(folder.rglob("*.wav"))
        ]
        splits: dict[str, list[Prompt]] = {"train": [], "val": [], "test": []}
        for prompt in prompts:
            splits[split_of(prompt[1])].append(prompt)
        manifest = write_shards(
            options.out,
            "language_id",
            splits,
            partial(make_sample, folders=folders),
            made_with={"languages": list(LANGUAGES), "held_out": HELD_OUT},
            licence=LICENCE,
            workers=options.workers,
        )
    counts = ", ".join(f"{entry['written']:,} {name}" for name, entry in manifest["splits"].items())
    short = sum(entry["too_short"] for entry in manifest["splits"].values())
    unreadable = sum(entry["unreadable"] for entry in manifest["splits"].values())
    return f"{options.out}: {len(prompts):,} prompts, {counts}, {short} empty, {unreadable} unreadable"


def language_folders(source: Path) -> dict[str, Path]:
    """The folders of the languages that exist, named by code or by code, country and speaker."""
    found = {}
    for code in LANGUAGES:
        # the folder named by the bare code may be a link to one of the others
        folders = [*sorted(source.glob(f"{code}_*")), source / code]
        if folder := next((path for path in folders if path.is_dir()), None):
            found[code] = folder
    return found


def split_of(name: str) -> SplitName:
    """The split of a prompt: the same in every language."""
    return split_by_name("language_id", name, HELD_OUT)


def make_sample(prompt: Prompt, folders: dict[str, Path]) -> dict:
    code, name = prompt
    content = read_bytes(folders[code] / f"{name}.wav")
    key = f"{code}/{name}".replace(".", "_")
    with decoding(key):
        seconds = len(read_sound(content, RATE)) / RATE
    if not seconds:
        raise TooShort(f"{key} has no samples")
    label = list(LANGUAGES).index(code)
    return {
        "__key__": key,
        "wav": content,
        "json": {"label": label, "language": code, "prompt": name, "seconds": seconds},
    }
