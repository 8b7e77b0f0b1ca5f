"""A package of icons, in the form of @iconify/json."""

import io
import json
import tarfile
from pathlib import Path

SQUARE = '<path fill="currentColor" d="M4 4h8v8H4z"/>'
CIRCLE = '<circle cx="8" cy="8" r="4" fill="red"/>'
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
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member, text = tarfile.TarInfo(name), json.dumps(content).encode()
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path
