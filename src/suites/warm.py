"""Runs of a suite in processes that start at once: they are forked from one that has imported everything and done nothing.

No run leaves anything behind for the next, so each has the bits of a run alone.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..config.command import run_command
from ..config.package import NAME

running: set[BaseProcess] = set()
told: list[int] = []  # signals that this process was told to stop with


def pass_on(number: int) -> None:
    """Tells the runs in progress to save and end, and starts no others."""
    told.append(number)
    for process in list(running):
        if process.pid is not None and process.exitcode is None:
            os.kill(process.pid, number)


def run_warm(options: list[str], log: Path | None, command: str = "fit") -> int:
    """Runs a command with these options in a process of its own; returns its exit status, 128 + the signal once told to
    stop.

    Args:
        options: the words after `python -m src.COMMAND`.
        log: file that gets its output, or None for the terminal.
        command: fit or evaluate.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{NAME}.suites.preload"])
    process = context.Process(target=run_in_fork, args=(command, options, log))
    if told:
        return 128 + told[0]
    process.start()
    running.add(process)
    if told:  # between the two lines
        pass_on(told[0])
    process.join()
    running.discard(process)
    assert process.exitcode is not None  # it has ended
    return process.exitcode


def run_in_fork(command: str, options: list[str], log: Path | None) -> None:
    """What the process runs. It looks like `python -m src.COMMAND` to records, and to Lightning where that starts ranks."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
    module = f"{NAME}.{command}"
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    sys.argv = [spec.origin, *options]
    sys.orig_argv = [sys.executable, "-m", module, *options]
    sys.modules["__main__"].__spec__ = spec
    run_command(import_module(module).main)
