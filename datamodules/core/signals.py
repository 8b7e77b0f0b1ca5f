"""What ends a command: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a terminal that closes. The exit code is 128 + the signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def on_ending_signals(handle: Callable[[int], None], again: Callable[[int], None] | None = None) -> None:
    """Calls `handle` with the first of the signals. A second Ctrl-C ends the process at once.

    Signals that are ignored stay so, such as SIGHUP under nohup. Does nothing outside of the main thread.

    Args:
        handle: is called with the first.
        again: is called with a second Ctrl-C before the process ends.
    """
    told: list[int] = []
    owner = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that was forked from it has nothing to tell
            os._exit(128 + number)
        if told and number == signal.SIGINT:
            if again is not None:
                again(number)
            os._exit(128 + number)
        if not told:  # a closing terminal sends SIGHUP twice
            told.append(number)
            handle(number)

    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


def end_now(number: int) -> None:
    """Ends the command where it is: what it writes is whole at any moment."""
    print(f"stopped by {name_of(number)}", file=sys.stderr)
    sys.exit(128 + number)


def end_at_once(number: int) -> None:
    """The same for a process that is still importing, where libraries catch what is raised and go on."""
    print(f"stopped by {name_of(number)}", file=sys.stderr, flush=True)
    os._exit(128 + number)


def name_of(number: int) -> str:
    return signal.Signals(number).name


def leave_interrupts_to_parent(number: int) -> None:
    """A terminal sends Ctrl-C and its closing to all processes: the training process takes a last step and saves."""
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
