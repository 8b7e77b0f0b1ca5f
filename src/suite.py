"""Run all cells of a suite, here, on Ray or under SLURM: `python -m src.suite configs/suites/permuted_fashion_mnist.yaml`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from datamodules import UserError

from .config.command import Parser, run_command
from .config.error_messages import suggest
from .report.table import print_runs
from .runs.folder import Run
from .suites.definition import Cell, Suite, load_suite
from .suites.launchers import Work, run_here, run_on_ray, submit_to_slurm

DESCRIPTION = """Train and test every cell of a suite with every seed, each in a process of its own. What has finished is
skipped and what was stopped goes on, so that the same command goes on where it was; what breaks is named at the end."""


def main(args: list[str] | None = None) -> list[Run]:
    """Returns the finished runs; exits with 1 if any broke."""
    os.environ.pop("WANDB_RUN_ID", None)  # of a sweep: not that of every run
    parser = Parser("python -m src.suite", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("suite", type=Path, help="a file of configs/suites")
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds instead of the suite's")
    parser.add_argument("--cells", nargs="+", help="these cells alone")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="where run folders lie")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time, sharing the cores (default: 1)")
    parser.add_argument("--on", choices=("here", "ray", "slurm"), default="here", help="who runs them (default: here)")
    parser.add_argument("--cpus", type=float, default=1, help="Ray: cores for a run (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, help="Ray: GPUs for a run (default: 0)")
    parser.add_argument(
        "--sbatch", default="", help="SLURM: options of sbatch, such as '--gpus-per-node 1 --time 8:00:00'"
    )
    parser.add_argument("--task", type=int, help="become this run of the suite, by its number: what a SLURM job does")
    options = parser.parse_args(args)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs} is below 1")
    suite = load_suite(options.suite)
    chosen = chosen_cells(suite, options.cells)
    works = list(all_works(suite, options.seeds or suite.seeds, options.runs_dir))
    if options.task is not None:
        become(works, options.task)
    waves = [[work for cell, work in works if cell in wave and cell in chosen] for wave in suite.waves()]
    waiting = [[work for work in wave if not run_of(work).finished] for wave in waves]
    if options.on == "slurm":
        again = [str(options.suite), "--runs_dir", str(options.runs_dir)]
        again += ["--seeds", *map(str, options.seeds)] if options.seeds else []
        submit_to_slurm([wave for wave in waiting if wave], again, options.sbatch)
        return []
    broken: list[Work] = []
    for wave in waiting:
        ended = run_on_ray(wave, options.cpus, options.gpus) if options.on == "ray" else run_here(wave, options.jobs)
        broken += [work for work, status in ended if status]
    runs = [run_of(work) for wave in waves for work in wave]
    finished = [run for run in runs if run.finished]
    if finished:
        print_runs(finished)
    if broken:
        commands = (f"{work.name}: python -m src.fit {shlex.join(work.options)}" for work in broken)
        print(f"{len(broken)} of {len(runs)} runs broke:", *commands, sep="\n", file=sys.stderr)
        sys.exit(1)
    return finished


def all_works(suite: Suite, seeds: list[int] | tuple[int, ...], runs_dir: Path) -> Iterator[tuple[Cell, Work]]:
    """What there is to run, numbered over the whole suite."""
    pairs = [(cell, seed) for cell in suite.cells for seed in seeds]
    for number, (cell, seed) in enumerate(pairs):
        name, log = f"{suite.name}: {cell.name}, seed {seed}", runs_dir / suite.name / cell.name / f"seed{seed}.log"
        yield cell, Work(number, name, [*suite.options(cell, seed, runs_dir), "--resume", "auto"], log)


def become(works: list[tuple[Cell, Work]], number: int) -> None:
    """Replace this process by one run, so that it gets the signals itself."""
    if not 0 <= number < len(works):
        raise UserError(f"--task {number}: the suite has runs 0 to {len(works) - 1}")
    command = works[number][1].command
    os.execv(command[0], command)


def run_of(work: Work) -> Run:
    return Run(work.log.with_suffix(""))


def chosen_cells(suite: Suite, names: list[str] | None) -> list[Cell]:
    """All cells, or those that are named."""
    cells = {cell.name: cell for cell in suite.cells}
    for name in names or ():
        if name not in cells:
            raise UserError(f"suite {suite.name} has no cell {name!r}{suggest(name, cells)}")
    return [cells[name] for name in names or cells]


if __name__ == "__main__":
    run_command(main)
