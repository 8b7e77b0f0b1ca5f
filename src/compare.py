"""Compare runs: `python -m src.compare runs/quickstart --html quickstart.html`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from datamodules import UserError

from . import api
from .config.command import Parser, run_command
from .config.error_messages import FULL
from .config.package import command_name
from .report.comparison import Comparison
from .report.table import ALARM, print_runs, runs_frame
from .report.terminal import say
from .report.text import csv, latex, markdown, print_comparison
from .report.verification import error_line
from .runs.archive import unpack
from .runs.folder import Run, find_runs, find_unfinished
from .stats.claims import read_claims

DESCRIPTION = """Compare finished runs. One row per run, then one row per variant (cell): its mean with a 95 % interval for
another training and another test set, the difference from the reference with a verdict, published values, and costs; then
claims, and whatever differs between the runs. Runs that cannot be compared with the reference (different data, split,
budget or metric, unfinished) are listed and left out; src/report/rules.py has the rules. Exit code 2
where a run contradicts itself: its predictions give other metrics than its results.json."""


def main(args: list[str] | None = None) -> Comparison | list[Comparison]:
    """Prints the comparison, writes the files that the options name, and returns it; those of a site, one per experiment."""
    parser = Parser(command_name("compare"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="*",
        metavar="RUN_OR_FOLDER",
        help="run folders, folders of them, or archives of `suite`",
    )
    parser.add_argument("--from-wandb", metavar="ENTITY/PROJECT[/GROUP]", help="runs on W&B's server")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="whose metrics (default: test)")
    parser.add_argument(
        "--reference",
        metavar="VARIANT",
        help="the variant that differences are taken from (default: that of the suite, else the first)",
    )
    parser.add_argument(
        "--claims",
        metavar="FILE_OR_LIST",
        help="comparisons to judge: a file, or `A > B; A = B within 1 point on top1`",
    )
    parser.add_argument("--any-budget", action="store_true", help="also compare runs with different budgets")
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE.csv",
        help="write runs, unrounded, to this file, variants to FILE_cells.csv, pairs and claims likewise",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table of variants")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="write the table of variants for booktabs")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page with tables, curves and predictions")
    parser.add_argument(
        "--site", type=Path, metavar="FOLDER", help="only write a leaderboard of all experiments, as pages"
    )
    parser.add_argument("--wandb", action="store_true", help="log tables, images and the page to W&B")
    parser.add_argument("--wide", action="store_true", help="show all columns, however wide the terminal is")
    options = parser.parse_args(args)
    if not options.runs and not options.from_wandb:
        parser.error("no runs given: name run folders, or --from-wandb")

    others = ("csv", "markdown", "latex", "html", "wandb", "claims", "reference")
    if options.site and (given := [name for name in others if getattr(options, name)]):
        parser.error(
            f"--site goes without --{given[0]}: its pages have tables, and the references and claims of suites"
        )

    with tempfile.TemporaryDirectory() as fetched:
        places = [unpacked(path, Path(fetched)) for path in options.runs]
        runs = find_runs(places)
        if options.from_wandb:
            from .runs.wandb_logger import fetch_runs  # imports wandb: seconds

            places.append(Path(fetched, "wandb"))
            runs += fetch_runs(options.from_wandb, places[-1])
        if options.site:
            for path in find_unfinished(places):
                say(f"left out: {path} (unfinished: no results.json)", ALARM)
            return write_site(options.site, runs, options.split, options.any_budget)
        claims = [claim.text for claim in read_claims(options.claims)] if options.claims else []
        wanted = {"split": options.split, "reference": options.reference, "any_budget": options.any_budget}
        comparison = api.compare(places, claims=claims, **wanted)
        wrong = {out.folder: out.reasons[0] for out in comparison.excluded if out.contradicts}
        frame = runs_frame(runs, options.split)
        print_runs(frame[~frame["run"].isin(wrong)], options.split, options.wide)
        print_comparison(comparison, options.wide)
        frame["left_out"] = frame["run"].map({out.folder: "; ".join(out.reasons) for out in comparison.excluded})
        verified = {record.folder for record in comparison.records if record.verified}
        frame["verified"] = frame["run"].isin(verified)
        frame["run"] = frame["run"].str.removeprefix(f"{fetched}/")  # of archives the same on every machine
        if options.csv:
            write(options.csv, csv(frame))
            tables = {
                "cells": comparison.frame(),
                "pairs": comparison.pairs_frame(),
                "claims": comparison.claims_frame(),
            }
            for name, table in tables.items():
                if len(table):
                    write(options.csv.with_stem(f"{options.csv.stem}_{name}"), csv(table))
        for path, form in ((options.markdown, markdown), (options.latex, latex)):
            if path:
                write(path, form(comparison))
        if options.html:
            from .report.html import html_page  # imports matplotlib and torch: seconds

            write(options.html, html_page(comparison))
        if options.wandb:
            from .report.wandb_report import log_comparison

            log_comparison(comparison, frame)
        if wrong:
            raise UserError(error_line(wrong))
    return comparison


def unpacked(path: Path, scratch: Path) -> Path:
    """A folder of runs; those of an archive are unpacked, without the trials that tuned them."""
    if path.suffixes[-2:] != [".tar", ".xz"] or not path.is_file():
        return path
    name = path.name.removesuffix(".tar.xz")
    unpack(path, scratch / name)
    found = scratch / name / name
    return found if found.is_dir() else found.parent


def write_site(folder: Path, runs: list[Run], split: Literal["val", "test"], any_budget: bool) -> list[Comparison]:
    """Compares the runs of each experiment, and writes the site of all."""
    from .site.build import Experiment, build_site, check_place  # imports torch: seconds

    check_place(folder)
    of_name: dict[str, list[Run]] = {}
    for run in runs:
        of_name.setdefault(run.results().experiment, []).append(run)
    found, wrong = [], {}
    for name, group in sorted(of_name.items()):
        try:
            comparison = api.compare(group, split=split, any_budget=any_budget)
        except UserError as error:
            found.append(Experiment(name, why=str(error)))
            say(f"{name}: left out: {error}", ALARM)
            continue
        found.append(Experiment(name, comparison))
        wrong |= {out.folder: out.reasons[0] for out in comparison.excluded if out.contradicts}
        left = f"; {len(comparison.excluded)} runs left out" if comparison.excluded else ""
        say(f"{name}: {comparison.summary}{left}", wrap=True)
    if all(each.comparison is None for each in found):
        raise UserError(found[0].why)
    print(f"written: {build_site(folder, found)}")
    if wrong:
        raise UserError(error_line(wrong))
    return [each.comparison for each in found if each.comparison is not None]


def write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"{path} cannot be written ({error.strerror}): name another file") from error
    print(f"written: {path}")


if __name__ == "__main__":
    run_command(main)
