"""What every command shares: its parser, and how it ends when something goes wrong."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from datamodules import UserError

from .error_messages import external_failure, is_user_error, one_line

STOPPED = 128 + signal.SIGTERM  # exit status of a run that was stopped


class Parser(argparse.ArgumentParser):
    """Options of a command that takes no config. A wrong option raises UserError instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see `{self.prog} --help`")


def run_command(main: Callable[[list[str]], object]) -> None:
    """Run a command's `main` on the command line.

    A user's error ends with one line and exit code 2, a failure from outside (a full disk, a dead worker) with one line
    and exit code 1. `--debug` shows the stack trace.
    """
    args = sys.argv[1:]
    debug = "--debug" in args
    quiet_libraries()
    try:
        main([arg for arg in args if arg != "--debug"])
    except SystemExit as error:
        if type(error).__name__ == "SIGTERMException":  # Lightning's, in evaluation; training ends by itself
            sys.exit(STOPPED)
        raise
    except Exception as error:
        user_error = is_user_error(error)
        line = one_line(error) if user_error else external_failure(error)
        if debug or line is None:
            raise
        print(f"error: {line}", file=sys.stderr, flush=True)
        sys.exit(2 if user_error else 1)


def quiet_libraries() -> None:
    """Hide what libraries say about themselves; warnings that concern the user's run stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    ignore = partial(warnings.filterwarnings, "ignore")
    ignore(message=".*does not have many workers.*")
    ignore(message=".*exists and is not empty.*")
    ignore(message=".*number of training batches.*is smaller than the logging interval.*")
    ignore(message=".*is deprecated.*", module="torch.*")
    ignore(message=".*LeafSpec.*")
    ignore(message=".*It is recommended to use .*sync_dist=True.*")  # our metrics join their states
    ignore(message=".*WeightAveraging callback with a model that overrides the configure_model.*")
    ignore(message=".*args parameter is intended to run from within Python.*")
