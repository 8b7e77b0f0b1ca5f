"""Helpers for processes that write a folder: a lock, workers that end with their parent, and readable disk errors."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from ..core.checks import check_is_file
from ..core.errors import UserError

log = logging.getLogger(__name__)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    """Turns a full disk, a folder that cannot be written, and killed workers into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise UserError(
                f"{error.filename or folder} cannot be written ({error.strerror or error}): check it and its permissions, or "
                "choose another --out"
            ) from error
        raise UserError(
            f"no space left to write {folder} ({error.strerror}): free some and run the same command again; "
            "finished shards are kept"
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker that was writing {folder} was killed, perhaps for lack of memory: run the same command again with "
            "fewer --workers; finished shards are kept"
        ) from error


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits until no other process writes the folder. Forked workers share the lock of their parent, so a restart also
    waits for workers that outlive a killed parent."""
    check_is_file(folder / ".lock")
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s is being written by another process, waiting for it", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start_worker() -> None:
    """Initializes a worker process."""
    import torch  # not at the top: to inspect a folder, it is not needed

    torch.set_num_threads(1)  # torch's thread pool does not survive a fork
    threading.Thread(target=exit_with_parent, daemon=True).start()


def exit_with_parent() -> None:
    """Ends the worker with its parent; otherwise it would wait for work forever if the parent is killed."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
