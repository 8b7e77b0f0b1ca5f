"""A table of several suites: its file names them under `columns`, one for each data set.

  columns    suite to the budgets that it runs at, as shares of its own: [1] if left out. The first is tuned; the others have
             its choices, are not stressed, and show what more training is worth
  prepare    data sets that `python -m datamodules.prepare` writes first, where data/NAME is missing
The other keys are those that its columns share by `inherit`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules import UserError
from datamodules.prepare import SETS
from datamodules.storage.manifest import MANIFEST

from ..config.error_messages import suggest
from ..runs.folder import find_finished
from .definition import KEYS
from .inherit import read_yaml
from .protocol import FROZEN
from .reading import read_keys, read_mapping
from .tuning import CHOSEN, TRIALS

KEPT = (FROZEN, CHOSEN, "expected_best.csv", "optuna.log")  # of a suite, besides its runs


@dataclass(frozen=True)
class Table:
    """Suites, and the budgets of each."""

    columns: dict[Path, list[float]]
    prepare: list[str]


def read_table(path: Path) -> Table | None:
    """The columns of a suite's file; None where it is a suite of its own.

    Raises:
        UserError: the file, and what is wrong in it.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or "columns" not in content:
        return None
    content = read_keys(path, content, ("source", "columns"), ("prepare", *KEYS))
    columns: dict[Path, list[float]] = {}
    for name, scales in read_mapping(f"{path}, columns", content["columns"]).items():
        place = path.with_name(f"{name}.yaml")
        if not place.is_file():
            near = suggest(name, [found.stem for found in path.parent.glob("*.yaml")])
            raise UserError(f"{path}, columns: there is no suite {place}{near}")
        columns[place] = read_scales(f"{path}, columns, {name}", scales)
    if not columns:
        raise UserError(f"{path}: name suites under columns")
    prepare = content.get("prepare") or []
    if not isinstance(prepare, list) or any(name not in SETS for name in prepare):
        raise UserError(f"{path}: prepare {prepare} should be a list of data sets of `python -m datamodules.prepare`")
    return Table(columns, prepare)


def read_scales(where: str, scales: Any) -> list[float]:
    if scales is None:
        return [1.0]
    if not isinstance(scales, list) or not all(type(scale) in (int, float) and scale > 0 for scale in scales):
        raise UserError(f"{where}: {scales!r} should be a list of shares of its budget, such as [1, 0.3]")
    if not scales or scales[0] != 1:
        raise UserError(f"{where}: {scales} should begin with 1, at which it is tuned")
    return scales


def prepare(names: list[str]) -> None:
    """Writes the data sets that are missing. Raises UserError where one cannot be prepared; the command has said why."""
    for name in names:
        if (Path("data") / name / MANIFEST).is_file():
            continue
        command = [sys.executable, "-m", "datamodules.prepare", name]
        print(" ".join(["python", *command[1:]]), flush=True)
        if status := subprocess.run(command, check=False).returncode:
            raise UserError(f"data/{name} could not be prepared (exit code {status}): prepare it by hand, then go on")


def archived(name: str, runs_dir: Path) -> Iterator[tuple[str, Path]]:
    """The files of a suite that an archive keeps: what was frozen and chosen, its finished runs and trials."""
    for folder in (runs_dir / TRIALS.format(name), runs_dir / name):
        yield from ((f"{folder.name}/{kept}", folder / kept) for kept in KEPT if (folder / kept).is_file())
        for run in find_finished(folder):
            place = run.folder.relative_to(runs_dir).as_posix()
            yield from ((f"{place}/{file.name}", file) for file in run.copied_files())
