"""Shards that lie elsewhere: any URL that fsspec knows, read whole or copied to a local cache.

The cache is the folder that the environment variable BYTEBENCH_CACHE names, else ~/.cache/bytebench. Its files are named
by the hash of their bytes, so data that were made anew never meet older copies.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import fsspec

from ..core.errors import UserError


def url(folder: Path | str) -> str | None:
    """The URL that a folder is given as, None for a local path."""
    # a Path has made one slash of the two
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.+?)/*", str(folder))
    if found is None:
        return None
    return f"{found[1]}:{'///' if found[1] == 'file' else '//'}{found[2]}"


def cache_folder() -> Path:
    return Path(os.environ.get("BYTEBENCH_CACHE") or Path.home() / ".cache" / "bytebench")


def read_text(address: str) -> str:
    """A small remote file."""
    try:
        files, path = fsspec.url_to_fs(address)
        return files.cat_file(path).decode()
    except Exception as error:  # each file system raises its own
        raise UserError(f"{address} cannot be read ({type(error).__name__}: {error}): check the URL") from error


def read_texts(folder: str, names: Sequence[str]) -> list[str]:
    """Many small files of one remote folder, side by side where the file system can."""
    if not names:
        return []
    try:
        files, root = fsspec.url_to_fs(folder)
        found = files.cat([f"{root}/{name}" for name in names])
        contents = [found] if isinstance(found, bytes) else list(found.values())
    except Exception as error:  # each file system raises its own
        raise UserError(f"{folder} cannot be read ({type(error).__name__}: {error}): check the URL") from error
    return [content.decode() for content in contents]


def fetch(address: str, name: str, size: int) -> Path:
    """Copy a remote file into the cache under `name`, unless it is there, and return its path.

    It is written aside and renamed; of several processes that ask at once, one fetches and the others wait.
    """
    path = cache_folder() / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_file():
            return path
        try:
            files, remote_path = fsspec.url_to_fs(address)
            with files.open(remote_path, "rb") as source, aside.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
        except Exception as error:  # each file system raises its own
            aside.unlink(missing_ok=True)
            raise UserError(f"{address} cannot be copied to {path.parent} ({type(error).__name__}: {error})") from error
        if (found := aside.stat().st_size) != size:
            aside.unlink()
            raise UserError(f"{address} has {found} bytes, its manifest says {size}: prepare the remote folder again")
        os.replace(aside, path)
    return path
