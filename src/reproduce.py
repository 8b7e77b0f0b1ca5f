"""Run a run again and say whether it comes out the same: `python -m src.reproduce runs/digits/perceiver/seed0`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
import torch
from rich.table import Table

from datamodules import UserError

from . import fit
from .cli import ByteBenchCLI
from .config.command import Parser, run_command
from .report.table import console
from .runs.environment import environment
from .runs.folder import Run, flat

DESCRIPTION = """Train and test again what a run folder holds the config of, into another folder, on the same data and with as
many threads; then compare metrics, and losses step by step. Exit code 0: equal to the last bit; 1: different, the largest
difference of each metric is told; 2: it cannot be run again here."""
NOT_COMPARED = ("command", "wandb_id", "cpu_cores")  # of environment.json


def main(args: list[str] | None = None) -> bool:
    """Returns whether all metrics and losses are equal; exits with 1 if not."""
    parser = Parser("python -m src.reproduce", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs/reproduced"), help="where the new run is kept")
    parser.add_argument(
        "--trust", metavar="[PACKAGE]", help="packages besides ByteBench's own that the config names code of"
    )
    options = parser.parse_args(args)
    run = Run(options.run)
    config = run.config()
    there = run.read("environment.json")
    if options.runs_dir.resolve() == Path(config["runs_dir"]).resolve():
        raise UserError(f"--runs_dir {options.runs_dir} is where the run itself lies: give another folder")
    command = ["--config", str(run.folder / "config.yaml"), "--runs_dir", str(options.runs_dir)]
    command += ["--trust", options.trust] if options.trust else []

    threads = torch.get_num_threads()
    torch.set_num_threads(there["threads"])  # sums depend on it
    try:
        print_environments(there, environment())
        check_data(run, command)
        again = fit.main(command)
    finally:
        torch.set_num_threads(threads)
    equal = print_differences(run, again)
    if not equal:
        sys.exit(1)
    return equal


def print_environments(there: dict, here: dict) -> None:
    """What differs between where a run took place and this place."""
    before, now = (flat({k: v for k, v in place.items() if k not in NOT_COMPARED}) for place in (there, here))
    table = Table("environment", "of the run", "here", title_justify="left")
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            table.add_row(name, *(str(place.get(name, "-")) for place in (before, now)))
    if table.row_count:
        console().print(table)
    else:
        print("the environment is that of the run: commit, packages, hardware, threads")
    for dirty in (name for name, place in (("run's", there), ("present", here)) if place["git"]["dirty"]):
        print(f"note: the {dirty} checkout had changes that are in no commit")


def check_data(run: Run, command: list[str]) -> None:
    """Raises UserError where the data here are not those of the run."""
    data = ByteBenchCLI(command, DESCRIPTION, recording=False).datamodule
    data.prepare_data()
    kept = run.read("data.json")
    for name, found in data.describe().items():
        if found != kept[name]:
            raise UserError(
                f"the data here are not those of {run.folder} ({name} differs, see its data.json): get those"
            )


def print_differences(run: Run, again: Run) -> bool:
    """Print how the metrics and the losses over training differ; returns whether all are equal to the last bit."""
    table = Table("metric", "run", "again", "difference")
    differ = []
    before, now = (flat(r.results().metrics) for r in (run, again))
    for name in sorted(before.keys() | now.keys()):
        first, second = before.get(name), now.get(name)
        table.add_row(name, str(first), str(second), str(difference(first, second)))
        if not same(first, second):
            differ.append(name)
    out = console()
    out.print(table)
    curves = curve_differences(run, again)
    for name, (step, largest) in curves.items():
        out.print(f"{name} over training: differs from step {step} on, by up to {largest:.3g}", highlight=False)
    if not differ and not curves:
        out.print("equal to the last bit: all metrics, and losses at every logged step")
    else:
        out.print(f"different: {', '.join([*differ, *(f'{name} over training' for name in curves)])}", highlight=False)
    out.print(f"run: {again.folder}", highlight=False, soft_wrap=True)
    return not differ and not curves


def same(first: float | None, second: float | None) -> bool:
    both_nan = all(isinstance(v, float) and math.isnan(v) for v in (first, second))
    return first == second or both_nan


def difference(first: float | None, second: float | None) -> str:
    if same(first, second):
        return "0"
    return "-" if first is None or second is None else f"{second - first:+.3g}"


def curve_differences(run: Run, again: Run) -> dict[str, tuple[int, float]]:
    """Of every column of metrics.csv that differs: the first step at which it does, and the largest difference."""
    before, now = (read_curves(r) for r in (run, again))
    found = {}
    for name in dict.fromkeys(map(str, [*before, *now])):
        pair = pd.concat([frame[name] if name in frame else pd.Series(dtype=float) for frame in (before, now)], axis=1)
        first, second = pair.iloc[:, 0], pair.iloc[:, 1]
        differs = ~((first == second) | (first.isna() & second.isna()))
        if differs.any():
            # a value that one run alone has differs without end
            found[name] = (int(differs.idxmax()), float((first - second).abs().fillna(math.inf)[differs].max()))
    return found


def read_curves(run: Run) -> pd.DataFrame:
    """metrics.csv by step, one row for each; the test's metrics, which results.json has, left out."""
    path = run.folder / "metrics.csv"
    if not path.is_file():
        raise UserError(f"{path} is missing: without it losses cannot be compared")
    frame = pd.read_csv(path).groupby("step").last()
    return frame[[name for name in frame if str(name).startswith(("train/", "val/"))]]


if __name__ == "__main__":
    run_command(main)
