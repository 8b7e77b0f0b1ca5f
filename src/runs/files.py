"""How every file of a run is written: aside, synced, renamed, and its folder synced.

A kill or a power cut at any moment leaves the old file or the new one, whole. What was being written aside is called
NAME.PROCESS.part; the owner of the run folder removes what earlier ones left.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

PART = ".part"


def write_file(path: Path, content: bytes | memoryview | str) -> None:
    """Gives a file this content, whole or not at all.

    Raises:
        OSError: it cannot be written; `filename` says which file.
    """
    aside = write_aside(path, content)
    put_in_place(aside, path)


def write_aside(path: Path, content: bytes | memoryview | str) -> Path:
    """Writes and syncs the content that `put_in_place` will give to a file; returns where it lies."""
    aside = path.with_name(f"{path.name}.{os.getpid()}{PART}")  # evaluate may run twice at once
    try:
        with aside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remove_quietly(aside)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return aside


def put_in_place(aside: Path, path: Path) -> None:
    """Renames a synced file, or a folder of synced files, and syncs the folder around it."""
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where its file system can."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(number)


def remove_quietly(path: Path) -> None:
    """Removes a file that is only in the way; a full or failing disk is told by what follows."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def json_text(content: dict | list) -> str:
    """JSON as files of a run hold it; lists, which may be long, on one line."""
    return json.dumps(content, indent=1 if isinstance(content, dict) else None) + "\n"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """The SHA-256 of plain values. 1 and 1.0 are the same number: servers that keep JSON do not tell them apart."""
    return hashlib.sha256(json.dumps(normal(content), sort_keys=True, default=str).encode()).hexdigest()


def normal(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(name): normal(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [normal(value) for value in content]
    return float(content) if isinstance(content, int) and not isinstance(content, bool) else content
