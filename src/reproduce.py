"""Repeat a run and compare the results: `python -m src.reproduce runs/digits/perceiver/seed0`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
import torch

from datamodules import UserError

from .api import fit
from .cli import ByteBenchCLI
from .config.command import Parser, run_command
from .config.package import command_name
from .report.terminal import Column, print_table, say
from .runs import curves
from .runs.environment import environment
from .runs.folder import Run
from .runs.identity import flat

DESCRIPTION = """Repeat a run with its config, data and number of threads in another folder, then compare the metrics and the
losses at every logged step. Exit codes: 0 if they are bitwise equal, 1 if they differ, 2 if the run cannot be repeated
here."""
NOT_COMPARED = ("command", "wandb_id", "cpu_cores")  # of environment.json


def main(args: list[str] | None = None) -> bool:
    """Returns True if all metrics and losses are equal, otherwise exits with 1."""
    parser = Parser(command_name("reproduce"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "--runs_dir",
        type=Path,
        default=Path("runs/reproduced"),
        help="parent of the new run's folder (default: runs/reproduced)",
    )
    parser.add_argument("--trust", metavar="[PACKAGE]", help="further packages whose classes the config may name")
    options = parser.parse_args(args)
    run = Run(options.run)
    config = run.config()
    original = run.read("environment.json")
    if options.runs_dir.resolve() == Path(str(config.get("runs_dir", "runs"))).resolve():
        raise UserError(f"--runs_dir {options.runs_dir} contains the run itself: pass another folder")
    command = ["--config", str(run.folder / "config.yaml"), "--runs_dir", str(options.runs_dir)]
    command += ["--suite", "null"]  # its file may have changed, and says nothing of the numbers
    command += ["--trust", options.trust] if options.trust else []

    threads = torch.get_num_threads()
    torch.set_num_threads(original["threads"])  # the order of summation depends on it
    try:
        print_environments(original, environment())
        check_data(run, command)
        again = fit(options=command)
    finally:
        torch.set_num_threads(threads)
    equal = print_differences(run, again)
    if not equal:
        sys.exit(1)
    return equal


def print_environments(original: dict, current: dict) -> None:
    """Prints the differences between the environment of the run and the current one."""
    before, now = (flat({k: v for k, v in env.items() if k not in NOT_COMPARED}) for env in (original, current))
    environments = (("original run", before), ("now", now))
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if names:
        values = (("environment", names), *((h, [str(e.get(name, "-")) for name in names]) for h, e in environments))
        print_table([Column(heading, heading, texts, name=True) for heading, texts in values])
    else:
        print("same environment as the original run: commit, packages, hardware, threads")
    for name, env in (("original", original), ("current", current)):
        if env["git"]["dirty"]:
            print(f"note: the {name} checkout has uncommitted changes")


def check_data(run: Run, command: list[str]) -> None:
    """Raises UserError if the data differ from those of the run."""
    data = ByteBenchCLI(command, recording=False).datamodule
    data.prepare_data()
    recorded = run.read("data.json")
    for name, value in data.describe().items():
        if value != recorded[name]:
            raise UserError(
                f"the data differ from those of {run.folder}: data.json has another {name}: use the same data"
            )


def print_differences(run: Run, again: Run) -> bool:
    """Prints the differences of metrics and losses, and returns whether all are bitwise equal."""
    before, now = (flat(r.results().metrics) for r in (run, again))
    names = sorted(before.keys() | now.keys())
    values = {"original": [before.get(name) for name in names], "repeated": [now.get(name) for name in names]}
    values["difference"] = [difference(*pair) for pair in zip(*values.values(), strict=True)]
    columns = [Column(heading, heading, list(map(str, texts))) for heading, texts in values.items()]
    print_table([Column("metric", "metric", names, name=True), *columns])
    different = [name for name in names if not same(before.get(name), now.get(name))]
    curves = curve_differences(run, again)
    for name, (step, largest) in curves.items():
        say(f"{name} over training: differs from step {step} on, by at most {largest:.3g}")
    different += [f"{name} over training" for name in curves]
    if different:
        say(f"different: {', '.join(different)}")
    else:
        say("bitwise equal: all metrics, and the losses at every logged step")
    say(f"run: {again.folder}")
    return not different


def same(first: float | None, second: float | None) -> bool:
    both_nan = all(isinstance(v, float) and math.isnan(v) for v in (first, second))
    return first == second or both_nan


def difference(first: float | None, second: float | None) -> str:
    if same(first, second):
        return "0"
    return "-" if first is None or second is None else f"{second - first:+.3g}"


def curve_differences(run: Run, again: Run) -> dict[str, tuple[int, float]]:
    """For every column of metrics.csv that differs, the first step where it does and the largest difference."""
    before, now = (read_curves(r) for r in (run, again))
    found = {}
    for name in dict.fromkeys(map(str, [*before, *now])):
        pair = pd.concat([frame[name] if name in frame else pd.Series(dtype=float) for frame in (before, now)], axis=1)
        first, second = pair.iloc[:, 0], pair.iloc[:, 1]
        differs = ~((first == second) | (first.isna() & second.isna()))
        if differs.any():
            # a value that only one run has counts as infinitely different
            found[name] = (int(differs.idxmax()), float((first - second).abs().fillna(math.inf)[differs].max()))
    return found


def read_curves(run: Run) -> pd.DataFrame:
    """The training and validation columns of metrics.csv, one row per step."""
    path = run.folder / "metrics.csv"
    try:
        frame = curves.read_curves(path).groupby("step").last()
    except (FileNotFoundError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is missing or empty: it is needed to compare losses") from error
    return frame[[name for name in frame if str(name).startswith(("train/", "val/"))]]


if __name__ == "__main__":
    run_command(main)
