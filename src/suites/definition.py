"""Suites: the variants of one table of a paper, each with its published values. They are files in configs/suites/.

The experiment of the runs is the suite's name, NAME for configs/suites/NAME.yaml. Keys of the file:
  source         paper and table of the published values
  seeds          seeds of every variant
  budget         max_epochs, max_steps or max_time of every variant; the configs' own if left out
  config         a file of configs/, without .yaml, for the variants that name none
  variants       a list of name, config, overrides, published, and after: the name of an earlier variant whose runs this
                 one reads
  matrix         named axes, each a mapping from short names to config and overrides. Every combination is a variant, and
                 the short names joined by _ are its name; the first axis varies fastest
  published      published values of the matrix's variants, by name
  folds          N: every variant runs once on each of N folds, with data.fold K and _foldK after its name
  published_for  published values of models that are no variants, by name
overrides: from an option, as on src.fit's command line without --, to its value; {seed} and {runs_dir} in it are the run's.
published: {metric: {version: value}}. v1 is the first version of the paper, v2 the final one; top1, map and AP in %,
  parameters in millions, gflops in 10^9, counting a multiplication and an addition as two.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from datamodules import UserError

from ..config import documents
from ..config.command import Parser
from ..config.error_messages import suggest
from ..config.names import check_name
from ..config.package import CONFIGS
from ..runs.results import Published, SuiteEntry

SUITES = CONFIGS / "suites"
MOST_FOLDS = 1000
BUDGETS = ("max_epochs", "max_steps", "max_time")
# A suite changes what is trained, not where runs are kept, whom they trust, nor what the command does instead
OPTION = re.compile(r"(data|model|trainer)(\.\w+)*\+?|compile|tags")
KEYS = ("seeds", "budget", "config", "variants", "matrix", "published", "folds", "published_for")


@dataclass(frozen=True)
class Variant:
    """A config with some options changed."""

    name: str
    config: Path
    overrides: dict[str, Any]
    published: Published
    after: str | None = None


@dataclass(frozen=True)
class Suite:
    """A table: its variants, in order."""

    name: str
    path: Path
    source: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    budget: dict[str, Any]
    published_for: dict[str, Published]

    def variant(self, name: str) -> Variant:
        """The variant of this name. Raises UserError with the nearest name if there is none."""
        named = {variant.name: variant for variant in self.variants}
        if name not in named:
            raise UserError(f"suite {self.name} has no variant {name!r}{suggest(name, named)}")
        return named[name]

    def entry(self, name: str) -> SuiteEntry:
        """Where a variant stands, for the results of its runs. Raises UserError if there is none of this name."""
        variant = self.variant(name)
        return SuiteEntry(self.name, self.source, self.variants.index(variant), variant.published)

    def waves(self) -> list[list[Variant]]:
        """The variants in groups; a group can run once those before it have finished."""
        depth: dict[str, int] = {}
        for variant in self.variants:  # `after` names an earlier one
            depth[variant.name] = 0 if variant.after is None else depth[variant.after] + 1
        waves = range(max(depth.values()) + 1)
        return [[variant for variant in self.variants if depth[variant.name] == wave] for wave in waves]

    def options(self, variant: Variant, seed: int, runs_dir: Path) -> list[str]:
        """The arguments of src.fit for one run: its config, where it is kept, the budget and the overrides."""
        words = ["--config", str(variant.config), "--runs_dir", str(runs_dir), "--experiment", self.name]
        words += ["--suite", str(self.path), "--cell", variant.name, "--seed_everything", str(seed)]
        budget = {f"trainer.{name}": value for name, value in self.budget.items()}
        for option, value in (budget | variant.overrides).items():
            text = value if isinstance(value, str) else json.dumps(value)
            words += [f"--{option}", text.replace("{seed}", str(seed)).replace("{runs_dir}", str(runs_dir))]
        return words


def expand_variant(args: Sequence[str]) -> list[str]:
    """Replace `--variant SUITE/NAME` by the options that it stands for; the other arguments follow and override them.

    Raises UserError with the nearest name if the suite or the variant does not exist.
    """
    parser = Parser("fit", add_help=False, allow_abbrev=False)
    parser.add_argument("--variant")
    parser.add_argument("--seed_everything", type=int)
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"))
    if not any(arg.partition("=")[0] == "--variant" for arg in args):
        return list(args)
    found, others = parser.parse_known_args(args)
    suite_name, slash, name = found.variant.rpartition("/")
    if not slash:
        raise UserError(f"--variant {found.variant}: expected SUITE/NAME, such as perceiver_ablations/cross8_start")
    path = SUITES / f"{suite_name}.yaml"
    if not path.is_file():
        near = suggest(suite_name, sorted(known.stem for known in SUITES.glob("*.yaml")))
        raise UserError(f"--variant {found.variant}: there is no suite {suite_name!r} in configs/suites{near}")
    suite = load_suite(path)
    seed = suite.seeds[0] if found.seed_everything is None else found.seed_everything
    return [*suite.options(suite.variant(name), seed, found.runs_dir), *others]


def load_suite(path: Path) -> Suite:
    """Read and check a suite. Raises UserError with the file and what is wrong in it."""
    content = read_keys(path, read_yaml(path), ("source",), KEYS)
    budget, seeds, folds = content.get("budget") or {}, content.get("seeds", [0]), content.get("folds")
    check_name(f"{path}: the suite's name", path.stem)
    if not isinstance(content["source"], str):
        raise UserError(f"{path}: source {content['source']!r} should be a text: the paper and the table")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise UserError(f"{path}: seeds {seeds} should be a list of whole numbers, such as [0, 1, 2]")
    if folds is not None and (type(folds) is not int or not 0 < folds <= MOST_FOLDS):
        raise UserError(f"{path}: folds {folds!r} should be a whole number above 0")
    read_keys(f"{path}, budget", budget, (), BUDGETS)
    if not all(isinstance(value, int | str) and not str(value).startswith("--") for value in budget.values()):
        raise UserError(f"{path}: budget {budget} should have numbers, and max_time a text such as 00:12:00:00")
    listed = content.get("variants") or []
    if not isinstance(listed, list):
        raise UserError(f"{path}: variants should be a list")
    rows = [*matrix_rows(path, content.get("matrix") or {}, content.get("published") or {}), *listed]
    if not rows:
        raise UserError(f"{path} has no variants: list them under variants, or give axes under matrix")
    variants = [read_variant(path, number, row, content.get("config")) for number, row in enumerate(rows, start=1)]
    names = [variant.name for variant in variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: two variants are called {twice[0]}: give every variant a name of its own")
    for number, variant in enumerate(variants):
        if variant.after is not None and variant.after not in names[:number]:
            near = suggest(variant.after, names[:number])
            raise UserError(f"{path}, variant {variant.name}: no variant before it is called {variant.after!r}{near}")
    if folds is not None:
        variants = [of_fold(variant, fold) for variant in variants for fold in range(folds)]
    figures_of = read_mapping(f"{path}, published_for", content.get("published_for"))
    others = {name: read_published(f"{path}, {name}", figures) for name, figures in figures_of.items()}
    return Suite(path.stem, path, content["source"], tuple(variants), tuple(seeds), budget, others)


def read_yaml(path: Path) -> Any:
    if not path.is_file():
        beside = [found.name for found in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise UserError(f"there is no suite {path}{suggest(path.name, beside)}")
    return documents.read_yaml(path)


def read_keys(where: object, content: Any, needed: tuple[str, ...], others: tuple[str, ...]) -> dict:
    """A mapping that has all of the `needed` keys, and no keys but these and `others`."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected the keys {', '.join(needed + others)}, found {content!r}")
    for key in content:
        if key not in needed + others:
            raise UserError(f"{where} has the unknown key {key!r}{suggest(str(key), needed + others)}")
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"{where} lacks {missing[0]}: add it")
    return content


def matrix_rows(path: Path, axes: Any, published: Any) -> Iterator[dict]:
    """Every combination of the axes' choices, in the form of a row of `variants`."""
    if not isinstance(axes, dict) or not all(isinstance(choices, dict) for choices in axes.values()):
        raise UserError(f"{path}: matrix should map axes to short names, and these to config and overrides")
    for axis, choices in axes.items():
        for name, choice in choices.items():
            where = f"{path}, matrix, {axis} {name!r}"
            if not isinstance(name, str):
                raise UserError(f"{where}: a short name should be a text: put it in quotes")
            read_overrides(where, read_keys(where, choice, (), ("config", "overrides")))
    rows = {}
    for combination in product(*(choices.items() for choices in reversed(axes.values()))) if axes else ():
        names, choices = zip(*reversed(combination), strict=True)
        row: dict[str, Any] = {"name": "_".join(filter(None, names))}
        for choice in choices:
            row |= choice | {"overrides": row.get("overrides", {}) | read_overrides("", choice)}
        rows[row["name"]] = row
    for name, figures in read_keys(f"{path}, published", published, (), tuple(rows)).items():
        rows[name]["published"] = figures
    yield from rows.values()


def read_variant(path: Path, number: int, content: Any, default: str | None) -> Variant:
    """default: the suite's own config."""
    needed, others = ("name",), ("overrides", "published", "after")
    needed, others = ((*needed, "config"), others) if default is None else (needed, ("config", *others))
    content = read_keys(f"{path}, variant {number}", content, needed, others)
    name, configs = check_name(f"{path}, variant {number}: name", content["name"]), path.parent.parent
    config = configs / f"{content.get('config', default)}.yaml"
    if not config.is_file():
        near = suggest(config.stem, [found.stem for found in configs.glob("*.yaml")])
        raise UserError(f"{path}, variant {name}: there is no config {config}{near}")
    where = f"{path}, variant {name}"
    published = read_published(where, content.get("published") or {})
    return Variant(name, config, read_overrides(where, content), published, content.get("after"))


def read_overrides(where: str, content: dict) -> dict[str, Any]:
    overrides = content.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise UserError(f"{where}: overrides {overrides!r} should map options to values")
    for option, value in overrides.items():
        if not OPTION.fullmatch(str(option)) or str(option).endswith(".help"):
            raise UserError(
                f"{where}: {option!r} is no option that a suite changes: name one of data, model or trainer"
            )
        if isinstance(value, str) and value.startswith("--"):
            raise UserError(f"{where}: {option} is {value!r}: a value does not start with --")
    return overrides


def read_mapping(where: str, content: Any) -> dict:
    """A mapping with names as keys; None is an empty one."""
    if not isinstance(content or {}, dict) or not all(isinstance(name, str) for name in content or {}):
        raise UserError(f"{where}: expected names with values, found {content!r}")
    return content or {}


def of_fold(variant: Variant, fold: int) -> Variant:
    """The variant on one fold; what it reads is of the same fold."""
    after = variant.after and f"{variant.after}_fold{fold}"
    overrides = variant.overrides | {"data.fold": fold}
    return replace(variant, name=f"{variant.name}_fold{fold}", overrides=overrides, after=after)


def read_published(where: str, content: Any) -> Published:
    """{metric: {version: value}}, checked."""
    figures = read_mapping(f"{where}, published", content)
    for metric, versions in figures.items():
        read_keys(f"{where}, {metric}", versions, (), ("v1", "v2"))
        if not all(type(value) in (int, float) and math.isfinite(value) for value in versions.values()):
            raise UserError(f"{where}: {metric} {versions} should be numbers")
    return figures
