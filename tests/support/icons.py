"""Packages of icons, emoji and names in the form of @iconify/json, cldr-annotations-full and @mdi/svg."""

import io
import json
import tarfile
from pathlib import Path

SQUARE = '<path fill="currentColor" d="M4 4h8v8H4z"/>'
CIRCLE = '<circle cx="8" cy="8" r="4" fill="red"/>'
PAIR = {"": [], "-lock": ["Lock"]}  # what follows the first word, and further tags
BROKEN = '<path d="M4 4h8v8H4z"'


def write_package(path: Path, sets: int = 12) -> Path:
    """A package with some sets of three icons; set0 may not be used commercially, and one icon of set1 is broken."""
    about, files = {}, {}
    for number in range(sets):
        name = f"set{number}"
        about[name] = {"license": {"spdx": "CC-BY-NC-4.0" if number == 0 else "MIT"}}
        icons = {"square": {"body": SQUARE}, "circle": {"body": CIRCLE}, "nothing_like_it": {"body": SQUARE}}
        if number == 1:
            icons["star"] = {"body": BROKEN}
        files[f"package/json/{name}.json"] = {"prefix": name, "icons": icons, "width": 16, "height": 16}
    files["package/collections.json"] = about
    return write_npm(path, files)


def write_emoji(styles: Path, names: Path, emoji: int = 24) -> None:
    """Emoji in three styles, of which one forbids commercial use, and their names in English and Swahili.

    noto and openmoji say which emoji their icons are, emojione calls them by noto's titles. Of two groups, one is of squares.
    """
    chars = {f"{0x1F400 + number:x}": f"emoji-{number}" for number in range(emoji)}
    icons = {
        title: {"body": CIRCLE if number % 2 else SQUARE, "width": 16, "height": 16}
        for number, title in enumerate(chars.values())
    }
    groups = {"Objects": list(chars.values())[::2], "Animals & Nature": list(chars.values())[1::2]}
    files = {
        "package/json/noto.json": {"prefix": "noto", "icons": icons, "chars": chars, "categories": groups},
        "package/json/emojione.json": {"prefix": "emojione", "icons": icons},
        "package/json/twemoji.json": {"prefix": "twemoji", "icons": icons, "chars": chars},
        "package/json/openmoji.json": {"prefix": "openmoji", "icons": icons, "chars": chars},
        "package/collections.json": {
            name: {"license": {"spdx": "CC-BY-NC-4.0" if name == "openmoji" else "MIT"}}
            for name in ("noto", "emojione", "openmoji", "twemoji")
        },
    }
    write_npm(styles, files)
    named: dict = {}
    for language, of in (("en", ("object", "animal")), ("sw", ("kitu", "mnyama"))):
        found = {chr(int(code, 16)): {"tts": [f"{of[n % 2]} {n}"]} for n, code in enumerate(chars)}
        many = {f"{chr(0x4E00 + n)}": {"tts": ["sign"]} for n in range(1500)}  # a language needs as many
        named[f"package/annotations/{language}/annotations.json"] = {"annotations": {"annotations": found | many}}
    few = {"🐀": {"tts": ["few"]}}
    write_npm(names, named | {"package/annotations/en-AU/annotations.json": {"annotations": {"annotations": few}}})


def write_tagged(path: Path, words: int = 30) -> Path:
    """Two icons for each of some first words, one with the tag Lock too; one without tags, and a deprecated one."""
    names = {f"word{number}{more}": ["Cloud", *lock] for number in range(words) for more, lock in PAIR.items()}
    about = [{"name": name, "tags": tags, "deprecated": False} for name, tags in names.items()]
    about += [{"name": "plain", "tags": [], "deprecated": False}, {"name": "old", "tags": ["Lock"], "deprecated": True}]
    whole = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{SQUARE}</svg>'
    return write_npm(path, {"package/meta.json": about} | {f"package/svg/{each['name']}.svg": whole for each in about})


def write_npm(path: Path, files: dict) -> Path:
    """A tarball as npm packs it; content that is not text is written as json."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            text = (content if isinstance(content, str) else json.dumps(content)).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path
