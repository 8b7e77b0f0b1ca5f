"""Train one variant of a benchmark and test it: `python -m src.fit --config configs/quickstart.yaml`."""

from __future__ import annotations

import sys

from . import api
from .config.command import run_command
from .config.help import answer_help
from .report.next_steps import print_next_after_run
from .report.table import print_runs, runs_frame
from .runs.folder import Run, rank_zero


def main(args: list[str] | None = None) -> Run:
    """Trains and tests; returns the finished run."""
    args = args or []
    if answer_help(args):
        sys.exit()
    run = api.fit(options=args)
    print_finished(run)
    return run


@rank_zero
def print_finished(run: Run) -> None:
    split = "test" if run.results().metrics.get("test") else "val"
    print_runs(runs_frame([run], split), split)
    print_next_after_run(run)


if __name__ == "__main__":
    run_command(main)
