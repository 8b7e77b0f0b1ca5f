"""Shared by all commands: the option parser and error handling."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from functools import partial

from datamodules.core.errors import Parser as Parser
from datamodules.core.signals import end_now, on_ending_signals

from .error_messages import external_failure, is_user_error, one_line
from .lean_imports import import_lean
from .names import plain
from .secrets import redacted_text

LONGEST_LINE = 800  # letters of an error


def run_command(main: Callable[[list[str]], object]) -> None:
    """Runs a command's `main` with the arguments of the command line.

    Exits with one line and code 2 after a user error, with one line and code 1 after an external failure (a full disk, a
    dead worker). `--debug` shows the stack trace instead.
    """
    args = sys.argv[1:]
    debug = "--debug" in args
    on_ending_signals(end_now)
    quiet_libraries()
    import_lean()
    gc.set_threshold(100_000)  # imports make a million objects and no garbage; looking for it takes 0.6 s
    try:
        main([arg for arg in args if arg != "--debug"])
    except Exception as error:
        user_error = is_user_error(error)
        line = one_line(error) if user_error else external_failure(error)
        if debug or line is None:
            raise
        text = plain(redacted_text(line))
        if len(text) > LONGEST_LINE:  # a name that a stranger chose; what to do stands at the end
            text = f"{text[: LONGEST_LINE // 2]} ... {text[-LONGEST_LINE // 2 :]}"
        print(f"error: {text}", file=sys.stderr, flush=True)
        sys.exit(2 if user_error else 1)


def quiet_libraries() -> None:
    """Hides messages of libraries that do not concern the user's run."""
    ignore = partial(warnings.filterwarnings, "ignore")
    ignore(message=".*does not have many workers.*")
    ignore(message=".*exists and is not empty.*")
    ignore(message=".*number of training batches.*is smaller than the logging interval.*")
    ignore(message=".*is deprecated.*", module="torch.*")
    ignore(message=".*LeafSpec.*")
    ignore(message=".*It is recommended to use .*sync_dist=True.*")  # our metrics synchronise their states themselves
    ignore(message=".*WeightAveraging callback with a model that overrides the configure_model.*")
    ignore(message=".*args parameter is intended to run from within Python.*")


def format_duration(seconds: float) -> str:
    """Formats seconds as 2:03 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
