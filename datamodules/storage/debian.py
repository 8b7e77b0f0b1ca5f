"""Content of Debian packages: from where they are installed, else downloaded and unpacked, which needs no root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError


def unpack(packages: Sequence[str], folder: Path) -> None:
    """Download packages with apt-get and unpack them under `folder`, without installing them.

    Raises UserError where there is no apt-get or a package cannot be had.
    """
    names = " ".join(packages)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UserError(
            f"there is no apt-get here to download {names}: give --source a folder with what they hold, made on a Debian or "
            "Ubuntu machine with `apt-get download` and `dpkg-deb -x`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    downloaded = folder / "downloaded"
    downloaded.mkdir(exist_ok=True)
    command = ["apt-get", "download", *packages]
    done = subprocess.run(command, cwd=downloaded, capture_output=True, text=True, check=False)
    files = sorted(downloaded.glob("*.deb"))
    if done.returncode or len(files) < len(set(packages)):
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"apt-get could not download {names} ({reason}): run `apt-get update` as root first and try again"
        )
    for file in files:
        done = subprocess.run(["dpkg-deb", "-x", file, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{file.name} could not be unpacked in {folder} ({done.stderr.strip()}): is there room?")
    shutil.rmtree(downloaded)


def find_or_unpack(packages: Sequence[str], installed: Path, scratch: Path) -> tuple[Path, str]:
    """The folder that has the packages' content, and a sentence that says which it is.

    installed: where the packages put it, such as /usr/share/datasets/NAME; used if it is there.
    scratch: else the packages are downloaded and unpacked under it.
    """
    names = ", ".join(packages)
    if installed.is_dir():
        return installed, f"Debian's {names}, installed in {installed}"
    unpack(packages, scratch)
    found = scratch / installed.relative_to("/")
    if not found.is_dir():
        raise UserError(f"Debian's {names} hold no {installed}: give --source a folder that has their content")
    return found, f"Debian's {names}, downloaded by apt-get and unpacked"
