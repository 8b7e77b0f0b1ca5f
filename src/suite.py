"""Run all variants of a suite, here, on Ray or under SLURM: `python -m src.suite configs/suites/probe.yaml`."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from datamodules import UserError
from datamodules.core.signals import name_of, on_ending_signals

from . import api
from .config.command import Parser, run_command
from .config.package import command_name, find_config
from .report.next_steps import print_next_after_suite
from .report.text import print_comparison
from .runs.archive import pack, unpack
from .runs.folder import Run
from .runs.lock import owned
from .suites.columns import archived, prepare, read_table
from .suites.definition import SUITES, Suite, Variant, load_suite
from .suites.launchers import Work, run_here, run_on_ray, submit_to_slurm
from .suites.protocol import freeze
from .suites.tuning import CHOSEN, TRIALS, with_choices
from .suites.warm import pass_on, told

DESCRIPTION = """Train and test every variant of a suite with every seed, each run in its own process. Finished runs are
skipped and stopped runs resume, so the same command continues an interrupted suite, but not one that was edited since: its
finished runs must have the options that it gives now, and its claims are frozen before a run reads the test split. Ends with
the table that compare prints. Runs that fail are listed at the end. A suite with `tune` is tuned first; one with `columns`
runs the suites that it names, one after another."""
REHEARSED = 2  # seeds and trials of a rehearsal


def main(args: list[str] | None = None) -> list[Run]:
    """Returns the finished runs; exits with 1 if any failed."""
    os.environ.pop("WANDB_RUN_ID", None)  # set by a sweep; each run needs its own
    parser = Parser(command_name("suite"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("suite", type=Path, help="a file in configs/suites, or its name")
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds instead of the suite's")
    parser.add_argument("--variants", nargs="+", help="run only these variants")
    parser.add_argument(
        "--add",
        metavar="CLASS",
        action="append",
        default=[],
        help="put a backbone, by its class path, into every combination of the suite's matrix; may be given again",
    )
    parser.add_argument("--list", action="store_true", help="print the commands that run each variant alone, and exit")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="parent of the run folders (default: runs)")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="SHARE",
        help=f"a rehearsal: this share of every budget, {REHEARSED} seeds and trials, in runs/SUITE_xSHARE",
    )
    parser.add_argument(
        "--archive",
        type=Path,
        metavar="FOLDER",
        help="take finished runs from FOLDER/SUITE.tar.xz, and write all that have finished into it at the end",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, sharing the cores (default: 1)")
    parser.add_argument("--on", choices=("here", "ray", "slurm"), default="here", help="where to run (default: here)")
    parser.add_argument("--cpus", type=float, default=1, help="Ray: cores per run (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, help="Ray: GPUs per run (default: 0)")
    parser.add_argument(
        "--sbatch", default="", help="SLURM: options of sbatch, such as '--gpus-per-node 1 --time 8:00:00'"
    )
    parser.add_argument("--trust", metavar="[PACKAGE]", help="further packages whose classes the configs may name")
    parser.add_argument("--task", type=int, help="run only the run with this number, as SLURM jobs do")
    options = parser.parse_args(args)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs} is below 1")
    if not 0 < options.scale <= 1:
        parser.error(f"--scale {options.scale} should be above 0, and at most 1")
    options.suite = Path(find_config(str(options.suite), "suites"))
    if (table := read_table(options.suite)) is None:
        return run_suite(load_suite(options.suite, options.add), options)
    if options.task is not None or options.on == "slurm":
        raise UserError(f"{options.suite} has columns: submit each of its suites alone")
    if not options.list:
        prepare(table.prepare)
    suites = [(load_suite(path, options.add), scale) for path, scales in table.columns.items() for scale in scales]
    suites.sort(key=lambda pair: pair[1] != 1)  # what all columns have first
    runs: list[Run] = []
    failed = []
    for suite, scale in suites:
        try:
            runs += run_suite(suite, options, scale)
        except SystemExit as ended:
            if ended.code != 1:  # a signal
                raise
            failed.append(suite.scaled(scale).name)  # its runs are told; the others need not wait
    if failed:
        print(f"runs failed in {', '.join(failed)}: see above", file=sys.stderr)
        sys.exit(1)
    return runs


def run_suite(suite: Suite, options: Namespace, scale: float = 1.0) -> list[Run]:
    """Tunes, trains, tests and compares the variants of one suite.

    Args:
        suite: as its file has it.
        options: of the command.
        scale: share of its budget; the choices are those of the whole budget.

    Returns:
        The finished runs; exits with 1 if any failed.
    """
    if options.scale != 1:
        suite = rehearsal(suite.scaled(options.scale))
    if options.archive:
        for name in (suite.name, suite.scaled(scale).name):
            if (path := options.archive / f"{name}.tar.xz").is_file() and (count := unpack(path, options.runs_dir)):
                print(f"{path}: {count} files")
    if suite.tune and not options.list and not (options.runs_dir / TRIALS.format(suite.name) / CHOSEN).is_file():
        if options.on == "slurm" or options.task is not None:
            raise UserError(f"tune first: {command_name('tune')} {options.suite}")
        from .tune import search  # imports pandas: a second

        search(suite, suite.tune.trials, options)
    suite = with_choices(suite, options.runs_dir).scaled(scale)
    chosen = [suite.variant(name) for name in options.variants] if options.variants else suite.variants
    if options.list:
        path = suite.path.resolve()
        name = path.stem if path.parent == SUITES.resolve() else path.with_suffix("")
        print(*(f"{command_name('fit')} --variant {name}/{variant.name}" for variant in chosen), sep="\n")
        return []
    trust = ["--trust", options.trust] if options.trust else []
    works = list(all_works(suite, options.seeds or suite.seeds, options.runs_dir, trust))
    experiment = options.runs_dir / suite.name
    if options.task is not None:
        freeze(suite, experiment)
        become(works, options.task)
    waves = [[work for variant, work in works if variant in wave and variant in chosen] for wave in suite.waves()]
    waiting = [[work for work in wave if not work.run.finished] for wave in waves]
    check_finished([work for wave in waves for work in wave if work.run.finished])
    if options.on == "slurm":
        freeze(suite, experiment)
        again = [str(options.suite), "--runs_dir", str(options.runs_dir)]
        again += ["--seeds", *map(str, options.seeds)] if options.seeds else []
        again += [word for class_path in options.add for word in ("--add", class_path)] + trust
        submit_to_slurm([wave for wave in waiting if wave], again, options.sbatch)
        return []
    failed: list[Work] = []
    with owned(experiment, "wait for it; --jobs runs several variants at a time"):
        freeze(suite, experiment)
        if options.on == "here":
            on_ending_signals(pass_on, pass_on)
        for wave in [*waiting, stress_works(suite, waves) if scale == 1 else ()]:
            wave = list(wave)
            ended = (
                run_on_ray(wave, options.cpus, options.gpus) if options.on == "ray" else run_here(wave, options.jobs)
            )
            failed += [work for work, status in ended if status]
        if options.archive:
            pack(options.archive / f"{suite.name}.tar.xz", archived(suite.name, options.runs_dir))
    runs = [work.run for wave in waves for work in wave]
    finished = [run for run in runs if run.finished]
    if finished:
        print_comparison(api.compare(finished))
        print_next_after_suite(experiment)
    if told:
        left = f"{len(runs) - len(finished)} of {len(runs)} runs are not finished"
        print(f"stopped by {name_of(told[0])}, {left}: run the same command again to continue", file=sys.stderr)
        sys.exit(128 + told[0])
    if failed:
        commands = (f"{work.name}: {command_name(work.by)} {shlex.join(work.options)}" for work in failed)
        print(f"{len(failed)} of {len(runs)} runs failed:", *commands, sep="\n", file=sys.stderr)
        sys.exit(1)
    return finished


def rehearsal(suite: Suite) -> Suite:
    """The suite with few seeds and trials."""
    tune = suite.tune and replace(suite.tune, trials=min(REHEARSED, suite.tune.trials))
    return replace(suite, seeds=suite.seeds[:REHEARSED], tune=tune)


def stress_works(suite: Suite, waves: list[list[Work]]) -> Iterator[Work]:
    """The runs to measure with damaged inputs, once the others have ended: one of every variant that learns."""
    if not suite.stress:
        return
    for work in itertools.chain.from_iterable(waves):
        folder = work.run.folder
        first = folder.name == f"seed{suite.seeds[0]}" and folder.parent.name not in suite.baselines
        if first and (folder / "checkpoints" / "last.ckpt").is_file() and not (folder / "stress_last.json").is_file():
            words = ["--run", str(folder), "--stress", "--samples", str(suite.stress)]
            log = folder.with_name(f"{folder.name}_stress.log")
            yield Work(work.number, f"{work.name}, stress", words, log, "evaluate")


def all_works(
    suite: Suite, seeds: list[int] | tuple[int, ...], runs_dir: Path, others: Sequence[str] = ()
) -> Iterator[tuple[Variant, Work]]:
    """The runs of a suite, numbered over the whole suite, each with further options."""
    pairs = [(variant, seed) for variant in suite.variants for seed in seeds]
    for number, (variant, seed) in enumerate(pairs):
        log = runs_dir / suite.name / variant.name / f"seed{seed}.log"
        options = [*suite.options(variant, seed, runs_dir), "--resume", "auto", *others]
        yield variant, Work(number, f"{suite.name}: {variant.name}, seed {seed}", options, log)


def check_finished(works: list[Work]) -> None:
    """Raises UserError where runs have finished with other options than the suite now gives: an edited suite."""
    if not works:
        return
    from .cli import check_options  # imports torch and Lightning: seconds

    for work in works:
        try:
            check_options(work.run, work.options)
        except UserError as error:
            what = str(error).partition(": ")[0]
            raise UserError(
                f"{what}: move the run away to train it again, or give the suite's file another name"
            ) from error


def become(works: list[tuple[Variant, Work]], number: int) -> None:
    """Replace this process by one run, so that the run itself receives the signals."""
    if not 0 <= number < len(works):
        raise UserError(f"--task {number}: the suite has runs 0 to {len(works) - 1}")
    command = works[number][1].command
    os.execv(command[0], command)


if __name__ == "__main__":
    run_command(main)
