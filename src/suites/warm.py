"""Runs of a suite in processes that start at once: they are forked from one that has imported everything and done nothing.

No run leaves anything behind for the next, so each has the bits of a run alone.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ..config.command import run_command
from ..config.package import NAME


def run_warm(options: list[str], log: Path | None) -> int:
    """Runs `fit` with these options in a process of its own; returns its exit status.

    Args:
        options: the words after `python -m src.fit`.
        log: file that gets its output, or None for the terminal.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{NAME}.suites.preload"])
    process = context.Process(target=fit_here, args=(options, log))
    process.start()
    process.join()
    assert process.exitcode is not None  # it has ended
    return process.exitcode


def fit_here(options: list[str], log: Path | None) -> None:
    """What the process runs. It looks like `python -m src.fit` to records, and to Lightning where that starts more ranks."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
    module = f"{NAME}.fit"
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    sys.argv = [spec.origin, *options]
    sys.orig_argv = [sys.executable, "-m", module, *options]
    sys.modules["__main__"].__spec__ = spec
    run_command(import_module(module).main)
