"""Worker processes that write a folder: one set of them at a time, ended with their parent, their errors explained."""

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

import torch

from ..core.errors import UserError

log = logging.getLogger(__name__)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"no room left to write {folder} ({error.strerror}): free some and run the same command again, "
            "finished shards are kept"
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker that wrote {folder} was killed, perhaps for its memory: run the same command again with fewer "
            "--workers, finished shards are kept"
        ) from error


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process writes the folder. Forked workers hold the lock with their parent, so that a restart
    also waits for those that outlive a killed one."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s is being written by another process: waiting for it", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start_worker() -> None:
    torch.set_num_threads(1)  # torch's thread pool does not survive a fork
    threading.Thread(target=exit_with_parent, daemon=True).start()


def exit_with_parent() -> None:
    """A pool's workers would wait for work forever once their parent was killed."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
