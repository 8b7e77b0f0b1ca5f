"""One owner at a time: who trains a run, or runs a suite, holds FOLDER.lock beside its folder.

The file says host, process and since when. The kernel locks it for the owner, on NFS too where its lock service runs, and
frees it when the owner dies. Where it cannot lock, the facts decide: an owner on this machine is dead if no process has its
number and start time. An owner on another machine touches the file every 20 seconds; after two minutes without, it counts
as dead. The lock of a dead owner is taken over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from datamodules import UserError

HEARTBEAT, STALE = 20.0, 120.0  # seconds
BUSY = (errno.EACCES, errno.EAGAIN)
held: set[str] = set()  # by this process, which the kernel does not keep from itself


@contextmanager
def owned(folder: Path, advice: str) -> Iterator[None]:
    """Owns a folder, which need not exist yet.

    Args:
        folder: a run's, or a suite's.
        advice: what to do where it is in use.

    Raises:
        UserError: another process owns it.
    """
    path = folder.with_name(f"{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = os.path.realpath(path)
    if name in held:
        raise UserError(f"{folder} is in use by this process: {advice}")
    number = acquire(path, folder, advice)
    held.add(name)
    done = threading.Event()
    threading.Thread(target=beat, args=(number, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        held.discard(name)
        path.unlink(missing_ok=True)  # while it is locked: who opened it before sees that it is another file
        os.close(number)


def acquire(path: Path, folder: Path, advice: str) -> int:
    """Takes the lock; returns the open file that holds it."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            busy = not lock(number)
            owner, age = read_owner(number), time.time() - os.fstat(number).st_mtime
            elsewhere = owner.get("host") != socket.gethostname()
            if busy or (owner and (age < STALE if elsewhere else alive(owner))):
                raise UserError(message(path, folder, owner, age, advice))
            if is_still(path, number):
                os.ftruncate(number, 0)
                os.pwrite(number, json.dumps(this_process()).encode(), 0)
                return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # its owner removed it in between: lock the new one


def lock(number: int) -> bool:
    """Whether the kernel gives the lock, or cannot lock there at all."""
    try:
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in BUSY
    return True


def is_still(path: Path, number: int) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(number))
    except FileNotFoundError:
        return False


def this_process() -> dict[str, Any]:
    pid = os.getpid()
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": pid, "started": start_time(pid), "since": since}


def read_owner(number: int) -> dict[str, Any]:
    """What an owner wrote of itself; nothing where it died before it had."""
    try:
        found = json.loads(os.pread(number, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def alive(owner: dict[str, Any]) -> bool:
    """Whether an owner on this machine still runs; another process may have its number by now."""
    pid = owner.get("pid")
    return isinstance(pid, int) and pid != os.getpid() and start_time(pid) == owner.get("started") is not None


def start_time(pid: int) -> int | None:
    """When a process began, in ticks since the machine's start; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name, in brackets, may hold spaces
    return None if state == "Z" else int(fields[18])


def message(path: Path, folder: Path, owner: dict[str, Any], age: float, advice: str) -> str:
    if not owner:
        return f"{folder} is in use by another process: {advice}"
    who = f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}"
    if owner.get("host") == socket.gethostname():
        return f"{folder} is in use by {who}: {advice}"
    return f"{folder} is in use by {who}, last seen {age:.0f} s ago: {advice}, or delete {path} if it no longer runs"


def beat(number: int, done: threading.Event) -> None:
    """Shows other machines that the owner lives."""
    while not done.wait(HEARTBEAT):
        try:
            os.utime(number)
        except OSError:
            return
