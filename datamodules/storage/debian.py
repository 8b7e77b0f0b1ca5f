"""Contents of Debian packages, from their installation or downloaded and unpacked without root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError


def unpack(packages: Sequence[str], folder: Path) -> None:
    """Downloads packages with apt-get and unpacks them into `folder`, without installing them.

    Raises:
        UserError: if there is no apt-get or a package cannot be downloaded.
    """
    names = " ".join(packages)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UserError(
            f"apt-get is needed to download {names} but not installed: set --source to a folder with their contents, made on "
            "a Debian or Ubuntu machine with `apt-get download` and `dpkg-deb -x`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    downloaded = folder / "downloaded"
    downloaded.mkdir(exist_ok=True)
    command = ["apt-get", "download", *packages]
    done = subprocess.run(command, cwd=downloaded, capture_output=True, text=True, check=False)
    files = sorted(downloaded.glob("*.deb"))
    if done.returncode or len(files) < len(set(packages)):
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"apt-get could not download {names} ({reason}): run `apt-get update` as root and try again")
    for file in files:
        done = subprocess.run(["dpkg-deb", "-x", file, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                f"{file.name} could not be unpacked in {folder} ({done.stderr.strip()}): check the free disk space"
            )
    shutil.rmtree(downloaded)


def find_or_unpack(packages: Sequence[str], installed: Path, scratch: Path) -> tuple[Path, str]:
    """Finds the folder with the contents of packages; downloads them if they are not installed.

    Args:
        packages: names of the packages.
        installed: the folder they install, such as /usr/share/datasets/NAME.
        scratch: folder to unpack them in if they are not installed.

    Returns:
        The folder, and a description of where it came from.
    """
    names = ", ".join(packages)
    if installed.is_dir():
        return installed, f"the Debian package {names}, installed in {installed}"
    unpack(packages, scratch)
    found = scratch / installed.relative_to("/")
    if not found.is_dir():
        raise UserError(f"the Debian package {names} has no {installed}: set --source to a folder with its contents")
    return found, f"the Debian package {names}, downloaded with apt-get and unpacked"
