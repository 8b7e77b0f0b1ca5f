"""Compare finished runs in one table: `python -m src.compare runs/quickstart`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from src.cli import run_command
from src.mistakes import Parser
from src.report.table import print_runs
from src.runs import find_runs

DESCRIPTION = """One row per run: metric, sample count, parameters, FLOPs, samples/s, peak memory, wall time, seed. Runs
that were measured on other data bytes or other split members are marked."""


def main(args: list[str] | None = None) -> pd.DataFrame:
    """Prints the table and returns it."""
    parser = Parser("python -m src.compare", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_OR_FOLDER", help="run folders, or folders of them")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--csv", type=Path, help="write the table here, with unrounded numbers")
    parser.add_argument("--wandb", action="store_true", help="log the table to W&B as a wandb.Table")
    options = parser.parse_args(args)

    frame = print_runs(find_runs(options.runs), options.split)
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.csv, index=False)
    if options.wandb:
        log_to_wandb(frame, options.split)
    return frame


def log_to_wandb(frame: pd.DataFrame, split: str) -> None:
    """The table as a W&B run of its own, in the group of the runs where they have one experiment in common."""
    import os

    import wandb

    os.environ.setdefault("WANDB_MODE", "offline")
    groups = frame["experiment"].unique()
    with wandb.init(
        project="bytebench", job_type="compare", name="compare", group=groups[0] if len(groups) == 1 else None
    ) as run:
        run.log({f"compare/{split}": wandb.Table(dataframe=frame)})


if __name__ == "__main__":
    run_command(main)
