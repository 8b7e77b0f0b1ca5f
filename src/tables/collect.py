"""From archives of runs to CSV files: what was measured, compared, damaged, tuned and spent, a row for each.

Figures have nine digits, which all machines agree on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import api
from ..report.comparison import Comparison
from ..report.table import runs_frame
from ..runs.archive import unpack
from ..runs.folder import Run, find_finished
from ..stats.intervals import MOST_SEEDS, Squares
from ..suites.space import on_edge
from ..suites.tuning import CHOSEN, TRIALS, open_study

ARCHIVE = ".tar.xz"
GOAL = 0.015  # half of an interval, for which the table of precision tells what it would take
MOST_SAMPLES = 1000  # times as many


def csv_files(folder: Path) -> dict[Path, bytes]:
    """The CSV files that a folder of archives should have beside them."""
    rows: dict[str, list[pd.DataFrame]] = {}
    for archive in sorted(folder.glob(f"*{ARCHIVE}")):
        name = archive.name.removesuffix(ARCHIVE)
        with tempfile.TemporaryDirectory() as scratch:
            unpack(archive, Path(scratch))
            for table, frame in frames(name, Path(scratch)).items():
                if len(frame):
                    rows.setdefault(table, []).append(frame)
    tables = {folder / f"{table}.csv": pd.concat(found, ignore_index=True) for table, found in rows.items()}
    return {path: table.to_csv(index=False, float_format="%.9g").encode() for path, table in tables.items()}


def frames(name: str, runs_dir: Path) -> dict[str, pd.DataFrame]:
    """Tables of one suite by name."""
    runs, trials = find_finished(runs_dir / name), find_finished(runs_dir / TRIALS.format(name))
    comparison = api.compare(runs)
    compared = {"pairs": comparison.pairs_frame(), "claims": comparison.claims_frame()}
    for frame in compared.values():
        frame.insert(0, "experiment", name)
    measured = runs_frame(runs).drop(columns="data")
    where = measured.pop("run").map({record.folder: record.hardware for record in comparison.records})
    return {
        "runs": measured.assign(hardware=where),
        "cells": comparison.frame(),
        **compared,
        "precision": pd.DataFrame(precision(name, comparison)),
        "stress": pd.DataFrame(stress(name, runs)),
        "trials": pd.DataFrame(tuned(name, runs_dir / TRIALS.format(name))),
        "time": pd.DataFrame(spent(name, runs, trials)),
    }


def precision(name: str, comparison: Comparison) -> Iterator[dict[str, Any]]:
    """The interval of every difference from the reference: where its width comes from, and what would make it narrow."""
    for number, variant in enumerate(comparison.variants):
        found = comparison.pairs.get((number, comparison.reference))
        if found is None or found.squares is None or variant.records[0].trivial:
            continue
        squares, total = found.squares, found.squares.total
        both = min(squares.within, total)  # what of a seed differs between samples: both would help
        yield {
            "experiment": name,
            "cell": variant.label,
            "half_width": found.half,
            "from_seeds": max(squares.of_seeds - squares.within, 0) / total if total else 0.0,
            "from_samples": max(squares.of_clusters - squares.within, 0) / total if total else 0.0,
            "from_both": both / total if total else 0.0,
            "seeds": found.seeds,
            "clusters": found.clusters,
            "it_would_take": "" if found.half <= GOAL else needed(squares, GOAL),
        }


def needed(squares: Squares, goal: float) -> str:
    """What would bring half of an interval down to a goal."""
    seeds = np.arange(2, MOST_SEEDS + 1)
    if (enough := squares.with_seeds(seeds).half_width() <= goal).any():
        return f"{seeds[enough.argmax()]} seeds"
    times = np.arange(2, MOST_SAMPLES + 1)
    if squares.clusters > 1 and (enough := squares.with_clusters(times * squares.clusters).half_width() <= goal).any():
        return f"{times[enough.argmax()]} times the test samples"
    return f"more than {MOST_SEEDS} seeds, and more test samples"


def stress(name: str, runs: Iterable[Run]) -> Iterator[dict[str, Any]]:
    """The hardest level of all damages, and calibration, of the runs that were measured with --stress."""
    for run in runs:
        if not (run.folder / "stress_last.json").is_file():
            continue
        record = run.read("stress_last.json")
        metric = record["metric"]
        damages = {
            " + ".join(condition["modalities"]) + ", " + condition["name"]: condition["metrics"][metric]
            for condition in record["conditions"]
            if condition["level"] == 5
        }
        missing = [c["metrics"][metric] for c in record["conditions"] if c["name"] == "missing"]
        row = {"experiment": name, "cell": run.results().cell, "samples": record["samples"], "metric": metric}
        row |= {"clean": record["clean"][metric], "damages": len(damages)}
        if damages:
            worst = min(damages, key=lambda damage: damages[damage])
            row |= {"hardest": float(np.mean(list(damages.values()))), "worst": damages[worst], "worst_damage": worst}
        row["least_missing"] = min(missing, default=np.nan)
        if calibration := record.get("calibration"):
            row |= {f"{key}_clean": calibration["clean"][key] for key in ("ece", "brier", "nll")}
            row |= {"temperature": calibration["temperature"], "ece_scaled": calibration["with_temperature"]["ece"]}
        yield row


def tuned(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The trials of every variant, and which was chosen."""
    if not (folder / CHOSEN).is_file():
        return
    for variant, choice in Run(folder).read(CHOSEN).items():
        for trial in open_study(folder, variant).trials[: choice["trials"]]:
            for option, value in trial.params.items():
                space = vars(trial.distributions[option])
                limits = {key: space[key] for key in ("low", "high", "log")} if "low" in space else None
                chosen = trial.number == choice["trial"]
                row = {"experiment": name, "cell": variant, "trial": trial.number, "option": option, "value": value}
                edge = on_edge(limits or list(space["choices"]), value)
                yield row | {"val": trial.value, "chosen": chosen, "on_edge": chosen and edge}


def spent(name: str, runs: Iterable[Run], trials: Iterable[Run]) -> Iterator[dict[str, Any]]:
    """Seconds of all runs and trials of a suite, by what they were for."""
    of_kind: dict[str, list[float]] = {}
    for kind, found in (("run", runs), ("trial", trials)):
        for run in found:
            results = run.results()
            trivial = kind == "run" and results.suite is not None and results.cell in results.suite.baselines
            of_kind.setdefault("baseline" if trivial else kind, []).append(results.wall_time_seconds)
    for kind, seconds in of_kind.items():
        yield {"experiment": name, "kind": kind, "runs": len(seconds), "seconds": sum(seconds)}
