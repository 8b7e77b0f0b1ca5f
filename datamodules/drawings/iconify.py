"""Icon sets of the npm package @iconify/json, and how npm fetches a package."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..core.checks import check_is_file
from ..core.errors import UserError

PACKAGE = "@iconify/json@2.2.535"
# SPDX names; without those that forbid commercial use, and GPL
OPEN = {
    *("Apache-2.0", "BSD-3-Clause", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "ISC", "MIT"),
    *("MPL-2.0", "OFL-1.1", "Unlicense"),
}
BOX = {"left": 0, "top": 0, "width": 16, "height": 16}  # with what holds where a set does not say


class Icon(NamedTuple):
    """One drawing of a set. Shards hash its repr, so its names are fixed."""

    icon_set: str
    title: str
    body: str
    box: tuple[float, float, float, float]  # left, top, width and height


class IconSet(NamedTuple):
    """A set as its json has it, and the SPDX name of its licence."""

    content: dict[str, Any]
    licence: str

    def icons(self) -> Iterator[Icon]:
        """The drawings, without those that the set hides."""
        name = self.content["prefix"]
        for title, icon in self.content["icons"].items():
            if not icon.get("hidden"):
                left, top, width, height = (
                    float(icon.get(key, self.content.get(key, usual))) for key, usual in BOX.items()
                )
                yield Icon(name, title, str(icon["body"]), (left, top, width, height))


def fetch(package: str, folder: Path) -> Path:
    """A package as npm fetches it into a folder."""
    command = ["npm", "pack", package, "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f"npm is not installed: fetch {package} elsewhere with `npm pack`, and pass --source"
        ) from error
    named = done.stdout.split()
    if done.returncode or not named:
        reason = " ".join(done.stderr.split())[:200]
        raise UserError(f"npm could not fetch {package} ({reason}): fetch it elsewhere, and pass --source")
    return folder / named[-1]


@contextmanager
def reading(path: Path, package: str) -> Iterator[None]:
    """Raises UserError for whatever shows, while it is read, that a file is not this package."""
    try:
        check_is_file(path)
        yield
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path} is not {package} ({reason}): fetch it with `npm pack {package}`") from error


def files_of(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files of a package whose names are wanted."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() and wanted(member.name) else None
            if file is not None:
                yield member.name, file.read()


def read_sets(path: Path, names: set[str] | None = None) -> dict[str, IconSet]:
    """The open icon sets of @iconify/json, sorted by name.

    Args:
        path: the package.
        names: of the sets to read, by default all.
    """
    collections, folder = "package/collections.json", "package/json/"

    def wanted(name: str) -> bool:
        return name == collections or (name.startswith(folder) and (names is None or Path(name).stem in names))

    files = {name: json.loads(content) for name, content in files_of(path, wanted)}
    about = files.pop(collections)
    contents = sorted((content["prefix"], content) for content in files.values())
    sets = {
        name: IconSet(content, str(about[name]["license"].get("spdx"))) for name, content in contents if name in about
    }
    return {name: each for name, each in sets.items() if each.licence in OPEN}
