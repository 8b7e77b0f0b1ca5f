"""Tune every variant of a suite alike: `python -m src.tune configs/suites/digits_ablations.yaml --trials 10`."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from datamodules import UserError
from datamodules.core.signals import name_of, on_ending_signals

from .config.command import Parser, run_command
from .config.package import command_name, find_config
from .metrics.registry import metric_named
from .report.next_steps import command
from .report.terminal import Column, print_table, say
from .runs.files import json_text, write_file
from .runs.folder import Run
from .runs.lock import owned
from .suites.definition import Suite, load_suite
from .suites.launchers import Work, run_here, run_on_ray
from .suites.protocol import FROZEN, has_results
from .suites.space import on_edge
from .suites.tuning import (
    CHOSEN,
    TRIALS,
    draw_trials,
    expected_best,
    open_study,
    trial_folder,
    trial_options,
    tuned_variants,
)
from .suites.warm import pass_on, told

DESCRIPTION = """Search the space of a suite: the same number of trials for every variant, drawn at random, trained with the
suite's first seed and measured on val alone. Finished trials are kept and stopped ones resume, so the same command continues,
and a larger --trials adds some. Writes the choices, which `suite` then uses and records, and the expected best value against
the number of trials (CSV and picture)."""


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Returns what was chosen for each variant; exits with 1 if a trial failed."""
    parser = Parser(command_name("tune"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("suite", type=Path, help="a file in configs/suites, or its name")
    parser.add_argument("--trials", type=int, help="trials of every variant (default: what the suite says)")
    parser.add_argument(
        "--add", metavar="CLASS", action="append", default=[], help="put in a backbone, as `suite` does"
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="parent of the run folders (default: runs)")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time, sharing the cores (default: 1)")
    parser.add_argument("--on", choices=("here", "ray"), default="here", help="where to run (default: here)")
    parser.add_argument("--cpus", type=float, default=1, help="Ray: cores per trial (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, help="Ray: GPUs per trial (default: 0)")
    parser.add_argument("--trust", metavar="[PACKAGE]", help="further packages whose classes the configs may name")
    options = parser.parse_args(args)
    suite = load_suite(Path(find_config(str(options.suite), "suites")), options.add)
    trials = options.trials if options.trials is not None else suite.tune.trials if suite.tune else None
    if trials is None:
        parser.error(f"{suite.path} does not say how many trials: give --trials")
    if trials < 1 or options.jobs < 1:
        parser.error(f"--trials {trials}, --jobs {options.jobs}: give at least 1 of each")
    return search(suite, trials, options)


def search(suite: Suite, trials: int, options: Namespace) -> dict[str, Any]:
    """Runs the trials that are missing, and chooses; exits with 1 if one failed, 128 + signal if it was told to stop.

    Args:
        suite: what is tuned.
        trials: of every variant.
        options: runs_dir, jobs, on, cpus, gpus and trust, as of the command.
    """
    experiment = options.runs_dir / suite.name
    if has_results(experiment):
        raise UserError(
            f"{experiment} has results on the test split, so choices are made (see {experiment / FROZEN}): tune before the "
            "suite runs, or give the suite's file another name"
        )
    folder = options.runs_dir / TRIALS.format(suite.name)
    with owned(folder, "wait for it; --jobs runs several trials at a time"):
        works = list(all_works(suite, trials, options.runs_dir, options.trust))
        waiting = [work for work in works if not work.run.finished]
        if options.on == "here":
            on_ending_signals(pass_on, pass_on)
        ended = (
            run_on_ray(waiting, options.cpus, options.gpus) if options.on == "ray" else run_here(waiting, options.jobs)
        )
        failed = [work for work, status in ended if status]
        if told:
            left = f"{sum(not work.run.finished for work in works)} of {len(works)} trials are not finished"
            print(f"stopped by {name_of(told[0])}, {left}: run the same command again to continue", file=sys.stderr)
            sys.exit(128 + told[0])
        if failed:
            commands = (f"{work.name}: {command_name('fit')} {shlex.join(work.options)}" for work in failed)
            print(f"{len(failed)} of {len(works)} trials failed:", *commands, sep="\n", file=sys.stderr)
            sys.exit(1)
        return conclude(suite, trials, folder)


def all_works(suite: Suite, trials: int, runs_dir: Path, trust: str | None) -> Iterator[Work]:
    """The trials of all variants, drawn where they were not yet."""
    folder, number = runs_dir / TRIALS.format(suite.name), 0
    for variant in tuned_variants(suite):
        for trial in draw_trials(open_study(folder, variant.name), suite, variant, trials):
            words = trial_options(suite, variant, trial, runs_dir) + (["--trust", trust] if trust else [])
            name = f"{suite.name}: {variant.name}, trial {trial.number}"
            yield Work(number, name, words, trial_folder(suite, variant, trial.number, folder).with_suffix(".log"))
            number += 1


def conclude(suite: Suite, trials: int, folder: Path) -> dict[str, Any]:
    """Tells Optuna the values of all trials, and writes and prints what is chosen."""
    from optuna.trial import TrialState

    chosen, rows, curves, warnings, metric = {}, [], [], [], ""
    for variant in tuned_variants(suite):
        results = [Run(trial_folder(suite, variant, number, folder)).results() for number in range(trials)]
        metric = results[0].main_metric or ""
        higher = metric_named(metric).higher_is_better
        values = [result.metrics["val"][metric] for result in results]
        study = open_study(folder, variant.name)
        for trial, value in zip(study.trials, values, strict=False):
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, value)
        best = values.index((max if higher else min)(values))
        options = study.trials[best].params
        chosen[variant.name] = {"trials": trials, "options": options, "trial": best, "val": values[best]}
        rows.append([variant.name, str(trials), metric_named(metric).format(values[best]), shown(options)])
        for n, value in enumerate(expected_best(values, higher), start=1):
            curves.append({"variant": variant.name, "trials": n, f"expected_best_val_{metric}": value})
        for option, value in options.items():
            if on_edge(variant.space[option], value):
                warnings.append(f"{variant.name}: {option} {value} lies on the edge of its space: widen it")
    frame = pd.DataFrame(curves)
    write_file(folder / "expected_best.csv", frame.to_csv(index=False))
    draw(frame, folder / "expected_best.png", metric)
    write_file(folder / CHOSEN, json_text(chosen))
    heads = ("variant", "trials", f"best val {metric}", "chosen")
    columns = zip(*rows, strict=True)
    print_table([Column(h, h, list(c), name=h in ("variant", "chosen")) for h, c in zip(heads, columns, strict=True)])
    for warning in warnings:
        say(f"warning: {warning}", wrap=True)
    say(f"written: {folder / CHOSEN}, expected_best.csv, expected_best.png")
    say(f"next: {command('suite', suite.path)}")
    return chosen


def shown(options: dict[str, Any]) -> str:
    short = {option.removeprefix("model."): value for option, value in options.items()}
    return ", ".join(f"{name} {v:.4g}" if isinstance(v, float) else f"{name} {v}" for name, v in short.items())


def draw(frame: pd.DataFrame, path: Path, metric: str) -> None:
    """The expected best value against the number of trials, a line for each variant."""
    from .pictures.style import picture  # imports matplotlib

    with picture(path, 6.0, 3.5, f"expected best val {metric} of n trials") as figure:
        axes = figure.subplots()
        for name, group in frame.groupby("variant", sort=False):
            axes.plot(group["trials"], group.iloc[:, 2], marker="o", markersize=3, label=str(name))
        axes.set(xlabel="trials, n")
        axes.legend()


if __name__ == "__main__":
    run_command(main)
