"""Remote shards at any URL that fsspec supports: indices are read directly, shards are copied to a local cache.

The cache is the folder in the environment variable BYTEBENCH_CACHE, by default ~/.cache/bytebench. Its files are named by
the hash of their bytes, which is checked before they get the name.

What may pass (a busy or broken server, a dropped connection, a short answer) is tried up to TRIES times, with pauses that
double; wrong bytes, which are seldom due to the way, are fetched twice. A web server may be silent for as many seconds as
BYTEBENCH_TIMEOUT says, by default 60; other file systems have timeouts of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from ..core.checks import check_is_file
from ..core.errors import UserError, reason
from .files import sha256, written_whole
from .workers import NO_ROOM

log = logging.getLogger(__name__)
Result = TypeVar("Result")
TRIES, PAUSE = 6, 1.0  # half a minute in all: seconds before the second try, doubled before each further one
AT_ONCE = 16  # small files that are read at a time
BUSY = (408, 425, 429)  # request timeout, too early, too many requests
PERMANENT = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    ImportError,
    TypeError,
)


class WrongBytes(Exception):
    """A whole file that is not the one of the manifest."""


def url(folder: Path | str) -> str | None:
    """The URL of a folder; None for a local path."""
    # Path collapses the two slashes into one
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.+?)/*", str(folder))
    if found is None:
        return None
    return f"{found[1]}:{'///' if found[1] == 'file' else '//'}{found[2]}"


def cache_folder() -> Path:
    return Path(os.environ.get("BYTEBENCH_CACHE") or Path.home() / ".cache" / "bytebench")


def timeout() -> float:
    """Seconds that a web server may be silent."""
    text = os.environ.get("BYTEBENCH_TIMEOUT") or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"BYTEBENCH_TIMEOUT {text!r} is not a number of seconds: set it to one, such as 60")
    return seconds


def file_system(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an address, and its path there."""
    if not address.startswith(("http://", "https://")):
        return fsspec.url_to_fs(address)
    from aiohttp import ClientTimeout

    # a large shard may take hours, as long as bytes keep coming
    waits = ClientTimeout(total=None, sock_connect=timeout(), sock_read=timeout())
    return fsspec.url_to_fs(address, client_kwargs={"timeout": waits})


def retried(what: str, action: Callable[[], Result]) -> Result:
    """Calls `action` until it succeeds. Raises UserError for what will not pass, and after TRIES attempts; a full disk here
    stays an OSError."""
    for number in count(1):
        try:
            return action()
        except UserError:
            raise
        except Exception as error:  # each file system raises its own
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            if not may_pass(error):
                raise UserError(f"{what} cannot be read ({explain(error)}): check the URL") from error
            tries, advice = TRIES, "check the server, then run the same command again"
            if isinstance(error, WrongBytes):
                tries, advice = 2, "prepare the remote folder again"
            if number >= tries:
                raise UserError(f"{what} could not be read in {number} tries ({explain(error)}): {advice}") from error
            # not from the global generator, whose state belongs to the training
            pause = PAUSE * 2 ** (number - 1) * random.SystemRandom().uniform(0.5, 1.5)
            log.warning("%s: %s; try %d of %d in %.1f s", what, explain(error), number + 1, tries, pause)
            time.sleep(pause)
    raise AssertionError("never reached")


def may_pass(error: Exception) -> bool:
    """Whether trying again may help."""
    status = status_of(error)
    return not isinstance(error, PERMANENT) if status is None else status >= 500 or status in BUSY


def status_of(error: Exception) -> int | None:
    """The HTTP status in an error of aiohttp or of a cloud's client."""
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    return status if isinstance(status, int) and 400 <= status < 600 else None


def explain(error: Exception) -> str:
    if (status := status_of(error)) is not None:
        return f"HTTP {status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, (WrongBytes, EOFError)):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout():g} s"
    return f"{type(error).__name__}, {reason(error)}"


def read_files(folder: str, hashes: Mapping[str, str | None]) -> dict[str, bytes]:
    """Reads small files of a remote folder, several at a time.

    Args:
        folder: the URL.
        hashes: the SHA-256 that each file must have, by its name; None if it is not known.
    """
    files, root = retried(f"{folder}/{next(iter(hashes), '')}", lambda: file_system(folder))

    def read(name: str) -> bytes:
        content: Any = files.cat_file(f"{root}/{name}")  # bytes, as it is called here
        if hashes[name] not in (None, hashlib.sha256(content).hexdigest()):
            raise WrongBytes("it has other bytes than in its manifest, by their SHA-256")
        return content

    with ThreadPoolExecutor(AT_ONCE) as pool:
        contents = pool.map(lambda name: retried(f"{folder}/{name}", lambda: read(name)), hashes)
        return dict(zip(hashes, contents, strict=True))


def fetch(address: str, hash: str, size: int, distrust: bool = False) -> Path:
    """Copies a remote file into the cache, unless it is there, and returns its path.

    If several processes need it, one fetches it and the others wait.

    Args:
        address: the URL of the file.
        hash: its SHA-256.
        size: its size in bytes.
        distrust: whether to hash a copy that is in the cache; by default only its size is checked. A copy that is not as it
            should be is replaced.
    """
    path = cache_folder() / f"{hash}.tar"
    if is_whole(path, size, hash if distrust else None):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_is_file(path.with_suffix(".lock"))
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_whole(path, size, hash if distrust else None):
                if path.is_file():
                    log.warning("%s is not what it was, fetching it again", path)
                retried(address, lambda: copy(address, path, hash, size))
    except OSError as error:
        raise UserError(
            f"{error.filename or path.parent} cannot be written ({error.strerror}): free some space, or set BYTEBENCH_CACHE "
            "to another folder"
        ) from error
    return path


def is_whole(path: Path, size: int, hash: str | None) -> bool:
    return path.is_file() and path.stat().st_size == size and hash in (None, sha256(path))


def copy(address: str, path: Path, hash: str, size: int) -> None:
    files, remote_path = file_system(address)
    with written_whole(path) as part:
        files.get_file(remote_path, str(part))
        if (found := part.stat().st_size) < size:
            raise EOFError(f"it has {found} bytes but {size} in its manifest")
        if sha256(part) != hash:
            raise WrongBytes("it has other bytes than in its manifest, by their SHA-256")
