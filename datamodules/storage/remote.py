"""Remote shards at any URL that fsspec supports, read directly or copied to a local cache.

The cache is the folder in the environment variable BYTEBENCH_CACHE, by default ~/.cache/bytebench. Its files are named by
the hash of their bytes, so stale copies are never used.
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
    """The URL of a folder; None for a local path."""
    # Path collapses the two slashes into one
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.+?)/*", str(folder))
    if found is None:
        return None
    return f"{found[1]}:{'///' if found[1] == 'file' else '//'}{found[2]}"


def cache_folder() -> Path:
    return Path(os.environ.get("BYTEBENCH_CACHE") or Path.home() / ".cache" / "bytebench")


def read_text(address: str) -> str:
    """Reads a small remote file."""
    try:
        files, path = fsspec.url_to_fs(address)
        return files.cat_file(path).decode()
    except Exception as error:  # each file system raises its own
        raise UserError(f"{address} cannot be read ({type(error).__name__}: {error}): check the URL") from error


def read_texts(folder: str, names: Sequence[str]) -> list[str]:
    """Reads many small files of a remote folder, in parallel if the file system supports it."""
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
    """Copies a remote file into the cache under `name`, unless it is there, and returns its path.

    It is written to a temporary file and renamed. If several processes need it, one fetches it and the others wait.
    """
    path = cache_folder() / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_file():
            return path
        try:
            files, remote_path = fsspec.url_to_fs(address)
            with files.open(remote_path, "rb") as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
        except Exception as error:  # each file system raises its own
            partial.unlink(missing_ok=True)
            raise UserError(f"{address} cannot be copied to {path.parent} ({type(error).__name__}: {error})") from error
        if (found := partial.stat().st_size) != size:
            partial.unlink()
            raise UserError(f"{address} has {found} bytes but {size} in its manifest: prepare the remote folder again")
        os.replace(partial, path)
    return path
