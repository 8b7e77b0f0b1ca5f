"""Suites: the cells of one table of a paper, each with what was published for it. They lie in configs/suites/.

experiment of the runs: the suite's name, `NAME` of configs/suites/NAME.yaml. Keys of the file:
  source         paper and table of the published figures
  seeds          of every cell
  budget         max_epochs, max_steps or max_time of every cell; the configs' own where left out
  cells          a list of name, config (a file of configs/, without .yaml), overrides, published, and after: the name of
                 a cell whose runs this one reads
  published_for  figures of models without a cell: from their name to what was published
overrides: from an option, as on src.fit's command line without --, to its value; {seed} and {runs_dir} in it are the run's.
published: {metric: {version: value}}. v1 is the first version of the paper, v2 the final one; top1, map and AP in %,
  parameters in millions, gflops in 10^9 multiplications and additions, counted apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from datamodules import UserError

from ..config.error_messages import suggest

BUDGETS = ("max_epochs", "max_steps", "max_time")
Figures = dict[str, dict[str, float]]  # metric -> version -> value


@dataclass(frozen=True)
class Cell:
    """One cell: a config with some options changed."""

    name: str
    config: Path
    overrides: dict[str, Any]
    published: Figures
    after: str | None = None


@dataclass(frozen=True)
class Suite:
    """A table: its cells, in order."""

    name: str
    source: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    budget: dict[str, Any]
    published_for: dict[str, Figures]

    def waves(self) -> list[list[Cell]]:
        """The cells in groups, each of which may run at once when those before it have finished."""
        depth: dict[str, int] = {}
        for cell in self.cells:  # `after` names an earlier one
            depth[cell.name] = 0 if cell.after is None else depth[cell.after] + 1
        return [[cell for cell in self.cells if depth[cell.name] == wave] for wave in range(max(depth.values()) + 1)]

    def options(self, cell: Cell, seed: int, runs_dir: Path) -> list[str]:
        """What src.fit is told of a run: its config, where it is kept, the budget and the overrides."""
        words = ["--config", str(cell.config), "--runs_dir", str(runs_dir), "--experiment", self.name]
        words += ["--cell", cell.name, "--seed_everything", str(seed)]
        budget = {f"trainer.{name}": value for name, value in self.budget.items()}
        for option, value in (budget | cell.overrides).items():
            text = value if isinstance(value, str) else json.dumps(value)
            words += [f"--{option}", text.replace("{seed}", str(seed)).replace("{runs_dir}", str(runs_dir))]
        return words


def load_suite(path: Path) -> Suite:
    """Read and check a suite. Raises UserError with the file and what is wrong in it."""
    content = read_keys(path, read_yaml(path), ("source", "cells"), ("seeds", "budget", "published_for"))
    budget, seeds = content.get("budget") or {}, content.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: seeds {seeds} should be a list of whole numbers, such as [0, 1, 2]")
    read_keys(f"{path}, budget", budget, (), BUDGETS)
    if not isinstance(content["cells"], list) or not content["cells"]:
        raise UserError(f"{path}: cells should be a list of one or more")
    cells = [read_cell(path, number, cell) for number, cell in enumerate(content["cells"], start=1)]
    names = [cell.name for cell in cells]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: two cells are called {twice[0]}: name every cell once")
    for number, cell in enumerate(cells):
        if cell.after is not None and cell.after not in names[:number]:
            near = suggest(cell.after, names[:number])
            raise UserError(f"{path}, cell {cell.name}: no cell before it is called {cell.after!r}{near}")
    others = {
        name: read_figures(f"{path}, {name}", figures) for name, figures in (content.get("published_for") or {}).items()
    }
    return Suite(path.stem, content["source"], tuple(cells), tuple(seeds), budget, others)


def read_yaml(path: Path) -> Any:
    if not path.is_file():
        beside = [found.name for found in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise UserError(f"there is no suite {path}{suggest(path.name, beside)}")
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}): mend it there") from error


def read_keys(where: object, content: Any, needed: tuple[str, ...], others: tuple[str, ...]) -> dict:
    """A mapping with all of `needed` and none but these and `others`."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected the keys {', '.join(needed + others)}, found {content!r}")
    for key in content:
        if key not in needed + others:
            raise UserError(f"{where} has the unknown key {key!r}{suggest(str(key), needed + others)}")
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"{where} lacks {missing[0]}: add it")
    return content


def read_cell(path: Path, number: int, content: Any) -> Cell:
    content = read_keys(f"{path}, cell {number}", content, ("name", "config"), ("overrides", "published", "after"))
    name, configs = str(content["name"]), path.parent.parent
    config = configs / f"{content['config']}.yaml"
    if not config.is_file():
        near = suggest(str(content["config"]), [found.stem for found in configs.glob("*.yaml")])
        raise UserError(f"{path}, cell {name}: there is no config {config}{near}")
    overrides = content.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise UserError(f"{path}, cell {name}: overrides {overrides!r} should map options to values")
    published = read_figures(f"{path}, cell {name}", content.get("published") or {})
    return Cell(name, config, overrides, published, content.get("after"))


def read_figures(where: str, content: Any) -> Figures:
    """{metric: {version: value}}, checked."""
    figures = content if isinstance(content, dict) else {"published": content}
    for metric, versions in figures.items():
        read_keys(f"{where}, {metric}", versions, (), ("v1", "v2"))
        if not all(type(value) in (int, float) for value in versions.values()):
            raise UserError(f"{where}: {metric} {versions} should be numbers")
    return figures
