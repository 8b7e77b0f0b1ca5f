"""What to do after a run or a suite: the next command, to be copied."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..config.package import command_name
from ..runs.folder import Run
from .terminal import say


def print_next_after_run(run: Run) -> None:
    """Print the command that compares a finished run with its experiment; that draws it where it is the only one so far."""
    experiment = run.folder.parent.parent
    others = [path for path in experiment.glob("*/seed*/results.json") if path.parent != run.folder]
    say(f"next: {command('compare', experiment) if others else command('visualize', run.folder)}")


def print_next_after_suite(experiment: Path) -> None:
    """Print where a suite's runs are, and the command that compares them.

    Args:
        experiment: the folder of the suite's runs, RUNS_DIR/SUITE.
    """
    say(f"runs: {experiment}")
    say(f"next: {command('compare', experiment)}")


def command(name: str, folder: Path) -> str:
    """A command on a folder, as the shell takes it."""
    return f"{command_name(name)} {shlex.quote(str(folder))}"
