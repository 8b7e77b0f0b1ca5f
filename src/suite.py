"""Run all cells of a suite, one after another: `python -m src.suite configs/suites/permuted_fashion_mnist.yaml`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from datamodules import UserError
from src.cli import run_command
from src.mistakes import Parser, suggest
from src.report.table import print_runs
from src.runs import Run
from src.suites import Suite, load_suite

DESCRIPTION = """Train and test every cell of a suite with every seed, each in a process of its own. What has finished is
skipped, so that the same command goes on where it was stopped; what breaks is named at the end."""


def main(args: list[str] | None = None) -> list[Run]:
    """Returns the finished runs; exits with 1 if any broke."""
    parser = Parser("python -m src.suite", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("suite", type=Path, help="a file of configs/suites")
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds instead of the suite's")
    parser.add_argument("--cells", nargs="+", help="these cells alone")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="where run folders lie")
    options = parser.parse_args(args)
    suite = load_suite(options.suite)
    finished: list[Run] = []
    broken: list[str] = []
    for cell in chosen_cells(suite, options.cells):
        for seed in options.seeds or suite.seeds:
            run = Run(options.runs_dir / suite.name / cell.name / f"seed{seed}")
            if not (run.folder / "results.json").is_file():
                print(f"{suite.name}: {cell.name}, seed {seed}", flush=True)
                words = suite.options(cell, seed, options.runs_dir)
                if subprocess.run([sys.executable, "-m", "src.fit", *words], check=False).returncode:
                    broken.append(f"{cell.name} seed {seed}: python -m src.fit {shlex.join(words)}")
                    continue
            finished.append(run)
    if finished:
        print_runs(finished)
    if broken:
        print(f"{len(broken)} of {len(broken) + len(finished)} runs broke:", *broken, sep="\n", file=sys.stderr)
        sys.exit(1)
    return finished


def chosen_cells(suite: Suite, names: list[str] | None) -> list:
    """All cells, or those that are named."""
    cells = {cell.name: cell for cell in suite.cells}
    for name in names or ():
        if name not in cells:
            raise UserError(f"suite {suite.name} has no cell {name!r}{suggest(name, cells)}")
    return [cells[name] for name in names or cells]


if __name__ == "__main__":
    run_command(main)
