"""Run all cells of a suite, one after another: `python -m src.suite configs/suites/permuted_fashion_mnist.yaml`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from datamodules import UserError
from src.cli import run_command
from src.engines import Work, run_here
from src.mistakes import Parser, suggest
from src.report.table import print_runs
from src.runs import Run
from src.suites import Cell, Suite, load_suite

DESCRIPTION = """Train and test every cell of a suite with every seed, each in a process of its own. What has finished is
skipped, so that the same command goes on where it was stopped; what breaks is named at the end."""


def main(args: list[str] | None = None) -> list[Run]:
    """Returns the finished runs; exits with 1 if any broke."""
    parser = Parser("python -m src.suite", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("suite", type=Path, help="a file of configs/suites")
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds instead of the suite's")
    parser.add_argument("--cells", nargs="+", help="these cells alone")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time, sharing the cores (default: 1)")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="where run folders lie")
    options = parser.parse_args(args)
    suite = load_suite(options.suite)
    chosen = chosen_cells(suite, options.cells)
    seeds = options.seeds or suite.seeds
    broken: list[Work] = []
    for wave in suite.waves():
        cells = [cell for cell in wave if cell in chosen]
        works = [make_work(suite, cell, seed, options.runs_dir) for cell in cells for seed in seeds]
        waiting = [work for work in works if not is_finished(run_of(work))]
        broken += [work for work, status in run_here(waiting, options.jobs) if status]
    runs = [run_of(make_work(suite, cell, seed, options.runs_dir)) for cell in chosen for seed in seeds]
    finished = [run for run in runs if is_finished(run)]
    if finished:
        print_runs(finished)
    if broken:
        commands = (f"{work.name}: python -m src.fit {shlex.join(work.options)}" for work in broken)
        print(f"{len(broken)} of {len(runs)} runs broke:", *commands, sep="\n", file=sys.stderr)
        sys.exit(1)
    return finished


def make_work(suite: Suite, cell: Cell, seed: int, runs_dir: Path) -> Work:
    log = runs_dir / suite.name / cell.name / f"seed{seed}.log"
    return Work(f"{suite.name}: {cell.name}, seed {seed}", suite.options(cell, seed, runs_dir), log)


def run_of(work: Work) -> Run:
    return Run(work.log.with_suffix(""))


def is_finished(run: Run) -> bool:
    return (run.folder / "results.json").is_file()


def chosen_cells(suite: Suite, names: list[str] | None) -> list[Cell]:
    """All cells, or those that are named."""
    cells = {cell.name: cell for cell in suite.cells}
    for name in names or ():
        if name not in cells:
            raise UserError(f"suite {suite.name} has no cell {name!r}{suggest(name, cells)}")
    return [cells[name] for name in names or cells]


if __name__ == "__main__":
    run_command(main)
