"""Commands in forks of this process, which has imported everything: hundreds of invocations take minutes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from src.config.command import run_command

LONGEST = 90.0  # seconds that an invocation may take on a busy machine
LONGEST_LINE = 1000  # letters


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended: exit status (None: it was stopped for taking too long), what it printed, and seconds."""

    status: int | None
    printed: str
    errors: str
    seconds: float

    def complaint(self, statuses: tuple[int, ...] = (0, 2)) -> str | None:
        """What is wrong with how it ended; None where it is done, or says in one line what the user did wrong.

        Args:
            statuses: exit statuses that the command may have.
        """
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        if self.status is None:
            return f"no end after {LONGEST:.0f} s"
        if "Traceback" in self.errors:
            return "stack trace"
        if self.status not in statuses:
            return f"exit status {self.status}"
        if len(lines) != (self.status == 2):
            return f"{len(lines)} error lines with exit status {self.status}"
        if any(len(line) > LONGEST_LINE for line in lines):
            return f"an error line of {max(map(len, lines))} letters"
        return None


def invoke(main: Callable[[list[str]], object], args: list[str], folder: Path, longest: float = LONGEST) -> Outcome:
    """Runs a command in a fork, in a folder of its own, for so many seconds at most."""
    torch.set_num_threads(1)  # threads do not survive a fork
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        sys.stdout.flush(), sys.stderr.flush()
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            run_forked(main, args, folder, (printed.fileno(), errors.fileno()))
        status = wait(child, longest)
        found = []
        for file in (printed, errors):
            file.seek(0)
            found.append(file.read())
    return Outcome(status, *found, time.monotonic() - began)


def run_forked(main: Callable, args: list[str], folder: Path, files: tuple[int, int]) -> None:
    """What the fork does; it ends here."""
    status = 1
    try:
        os.setpgid(0, 0)
        os.dup2(files[0], 1), os.dup2(files[1], 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        os.chdir(folder)
        sys.argv = ["src/command.py", *args]
        run_command(main)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def wait(child: int, longest: float) -> int | None:
    """The exit status of a child; None where it had to be stopped after so many seconds. Pauses count, not the clock: a
    machine that halts all processes for a while halts none of them for ever."""
    pause, waited = 0.002, 0.0
    while waited < longest:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        waited += pause
        pause = min(2 * pause, 0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
