"""Files that are written whole or not at all, and hashes of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path to write to, PATH.part, which is then synced to the disk and renamed.

    Whenever the process is killed or the power fails, there is a whole file under the name or none. An error removes the
    partial file; a kill leaves it, and the next writer replaces it.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # some file systems cannot sync folders
        sync(path.parent)


def sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_bytes(path: Path, content: bytes) -> None:
    with written_whole(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    write_bytes(path, (json.dumps(content, indent=indent) + "\n").encode())


def parse_json(content: bytes) -> Any:
    """Raises ValueError for anything but JSON."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
