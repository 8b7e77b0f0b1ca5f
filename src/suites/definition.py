"""Suites: the variants of one table of a paper, each with its published values. They are files in configs/suites/.

The experiment of the runs is the suite's name, NAME for configs/suites/NAME.yaml. Keys of the file:
  source         paper and table of the published values
  seeds          seeds of every variant
  budget         max_epochs, max_steps, max_time or max_flops (of training) of every variant; the configs' own if left out
  config         a file of configs/, without .yaml, for the variants that name none
  variants       a list of name, config, overrides, published, and after: the name of an earlier variant whose runs this
                 one reads
  matrix         named axes, each a mapping from short names to config and overrides. Every combination is a variant, and
                 the short names joined by _ are its name; the first axis varies fastest
  published      published values of the matrix's variants, by name
  folds          N: every variant runs once on each of N folds, with data.fold K and _foldK after its name
  published_for  published values of models that are no variants, by name
  inherit        the name of a suite beside this one, whose keys hold where this file does not give its own: see inherit.py
  equal          what all variants get the same of: samples (or what the budget says), time, flops; or published: each has
                 the budget of its paper
  baseline       methods of src.tasks.Trivial, each a further variant trivial_METHOD on the data of the first
  reference      the variant that differences are taken from; the first if left out
  claims         texts such as "perceiver > transformer on top1", fixed before the test split is read: see protocol.py
  space          options that `python -m src.tune` searches, and their values: see tuning.py
  tune           trials of every variant, and the scale of their budget: `suite` then tunes before it trains
  stress         N: the last checkpoint of every variant with the first seed is measured with damaged and missing inputs on N
                 test samples, see src/stress
overrides: from an option, as on src.fit's command line without --, to its value; {seed} and {runs_dir} in it are the run's.
published: {metric: {version: value}}. v1 is the first version of the paper, v2 the final one; top1, map and AP in %,
  parameters in millions, gflops in 10^9, counting a multiplication and an addition as two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datamodules import UserError

from ..config.command import Parser
from ..config.error_messages import suggest
from ..config.names import check_name
from ..config.package import CONFIGS, NAME
from ..runs.results import Published, SuiteEntry, Tuned
from .inherit import read_inherited
from .matrix import matrix_rows, with_backbone
from .reading import read_keys, read_mapping, read_overrides, read_published
from .space import Space, check_equal_sizes, read_space

SUITES = CONFIGS / "suites"
MOST_FOLDS = 1000
BUDGETS = ("max_epochs", "max_steps", "max_time", "max_flops")
# What is held equal, and the budget that it needs
EQUAL: dict[str, tuple[str, ...]] = {"samples": (), "time": ("max_time",), "flops": ("max_flops",), "published": ()}
KEYS = ("seeds", "budget", "config", "variants", "matrix", "published", "folds", "published_for")
KEYS += ("inherit", "equal", "baseline", "reference", "claims", "space", "tune", "stress")


@dataclass(frozen=True)
class Variant:
    """A config with some options changed."""

    name: str
    config: Path
    overrides: dict[str, Any]
    published: Published
    after: str | None = None
    space: Space = field(default_factory=dict)
    tuned: Tuned | None = None


@dataclass(frozen=True)
class Tune:
    """How a suite tunes its variants: the same number of trials for each, at this share of its budget."""

    trials: int
    scale: float = 1.0


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
    equal: str = "samples"
    reference: str | None = None
    claims: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    tune: Tune | None = None
    stress: int = 0

    def scaled(self, scale: float) -> Suite:
        """The same at another budget, whose runs are kept under another name. Raises UserError if it has no budget."""
        if scale == 1:
            return self
        return replace(self, name=f"{self.name}_x{scale:g}", budget=scaled(self.path, self.budget, scale))

    def variant(self, name: str) -> Variant:
        """The variant of this name. Raises UserError with the nearest name if there is none."""
        named = {variant.name: variant for variant in self.variants}
        if name not in named:
            raise UserError(f"suite {self.name} has no variant {name!r}{suggest(name, named)}")
        return named[name]

    def entry(self, name: str) -> SuiteEntry:
        """Where a variant stands, for the results of its runs. Raises UserError if there is none of this name."""
        variant = self.variant(name)
        return SuiteEntry(
            self.name,
            self.source,
            self.variants.index(variant),
            variant.published,
            self.equal,
            self.reference,
            list(self.claims),
            list(self.baselines),
            variant.tuned,
        )

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
        budget = {n if n == "max_flops" else f"trainer.{n}": value for n, value in self.budget.items()}
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


def load_suite(path: Path, added: Sequence[str] = ()) -> Suite:
    """Reads and checks a suite.

    Args:
        path: its file.
        added: class paths of backbones, each put into every combination of the matrix.

    Raises:
        UserError: the file, and what is wrong in it.
    """
    content = read_inherited(path)
    if isinstance(content, dict) and "columns" in content:
        raise UserError(
            f"{path} is a table of suites: name one of its columns, {', '.join(map(str, content['columns'] or ()))}"
        )
    content = read_keys(path, content, ("source",), KEYS)
    for class_path in added:
        content = with_backbone(path, content, class_path)
    budget, seeds, folds = content.get("budget") or {}, content.get("seeds", [0]), content.get("folds")
    check_name(f"{path}: the suite's name", path.stem)
    if not isinstance(content["source"], str):
        raise UserError(f"{path}: source {content['source']!r} should be a text: the paper and the table")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise UserError(f"{path}: seeds {seeds} should be a list of whole numbers, such as [0, 1, 2]")
    if folds is not None and (type(folds) is not int or not 0 < folds <= MOST_FOLDS):
        raise UserError(f"{path}: folds {folds!r} should be a whole number above 0")
    listed = content.get("variants") or []
    if not isinstance(listed, list):
        raise UserError(f"{path}: variants should be a list")
    rows = [*matrix_rows(path, content.get("matrix") or {}, content.get("published") or {}), *listed]
    if not rows:
        raise UserError(f"{path} has no variants: list them under variants, or give axes under matrix")
    space = read_space(str(path), content.get("space"))
    variants = [
        read_variant(path, number, row, content.get("config"), space) for number, row in enumerate(rows, start=1)
    ]
    baselines = read_baselines(path, content.get("baseline"), variants[0])
    variants += baselines
    names = [variant.name for variant in variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: two variants are called {twice[0]}: give every variant a name of its own")
    for number, variant in enumerate(variants):
        if variant.after is not None and variant.after not in names[:number]:
            near = suggest(variant.after, names[:number])
            raise UserError(f"{path}, variant {variant.name}: no variant before it is called {variant.after!r}{near}")
    reference = content.get("reference")
    if reference is not None and reference not in names:
        raise UserError(f"{path}: no variant is called {reference!r}, as its reference{suggest(reference, names)}")
    check_equal_sizes(path, {v.name: v.space for v in variants if v not in baselines})
    if folds is not None:
        variants = [of_fold(variant, fold) for variant in variants for fold in range(folds)]
    figures_of = read_mapping(f"{path}, published_for", content.get("published_for"))
    return Suite(
        path.stem,
        path,
        content["source"],
        tuple(variants),
        tuple(seeds),
        read_budget(path, budget),
        {name: read_published(f"{path}, {name}", figures) for name, figures in figures_of.items()},
        read_equal(path, content.get("equal"), budget),
        reference,
        read_claims(path, content.get("claims")),
        tuple(variant.name for variant in baselines),
        read_tune(path, content.get("tune"), budget),
        read_stress(path, content.get("stress", 0)),
    )


def read_budget(path: Path, budget: Any) -> dict[str, Any]:
    read_keys(f"{path}, budget", budget, (), BUDGETS)
    if not all(isinstance(value, int | float | str) and not str(value).startswith("--") for value in budget.values()):
        raise UserError(f"{path}: budget {budget} should have numbers, and max_time a text such as 00:12:00:00")
    return budget


def scaled(path: Path, budget: dict[str, Any], scale: float) -> dict[str, Any]:
    """The budget times `scale`: whole steps, at least one. Epochs have no parts, and no budget has none."""
    if not budget or not budget.keys() <= {"max_steps", "max_flops"}:
        raise UserError(f"{path}: a budget of max_steps or max_flops can be scaled, not {budget}: give it one")
    return {
        name: max(1, round(value * scale)) if name == "max_steps" else value * scale for name, value in budget.items()
    }


def read_tune(path: Path, content: Any, budget: dict[str, Any]) -> Tune | None:
    if content is None:
        return None
    found = Tune(**read_keys(f"{path}, tune", content, ("trials",), ("scale",)))
    if type(found.trials) is not int or found.trials < 1 or type(found.scale) not in (int, float) or found.scale <= 0:
        raise UserError(f"{path}: tune {content} should have whole trials, and a scale above 0 such as 0.33")
    if found.scale != 1:
        scaled(path, budget, found.scale)
    return found


def read_stress(path: Path, samples: Any) -> int:
    if type(samples) is not int or samples < 0:
        raise UserError(f"{path}: stress {samples!r} should be a number of test samples")
    return samples


def read_equal(path: Path, equal: Any, budget: dict[str, Any]) -> str:
    """What is held equal; what the budget says if the file does not."""
    of_budget = next((name for name, needed in EQUAL.items() if set(needed) & set(budget)), "samples")
    if equal is None:
        return of_budget
    if not isinstance(equal, str) or equal not in EQUAL:
        raise UserError(f"{path}: equal {equal!r} is not known{suggest(str(equal), EQUAL)}")
    if equal not in (of_budget, "published"):
        needs = f"needs {EQUAL[equal][0]} in the budget" if EQUAL[equal] else f"does not go with budget {budget}"
        raise UserError(f"{path}: equal {equal} {needs}: change one of them")
    return equal


def read_claims(path: Path, content: Any) -> tuple[str, ...]:
    from ..stats.claims import parse_claim  # imports scipy

    if not isinstance(content or [], list):
        raise UserError(f'{path}: claims should be a list of texts, such as ["a > b on top1"], not {content!r}')
    try:
        return tuple(parse_claim(claim).text for claim in content or [])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_baselines(path: Path, methods: Any, first: Variant) -> list[Variant]:
    """One variant for each method of `src.tasks.Trivial`, on the data of the first variant."""
    methods = [methods] if isinstance(methods, str) else methods or []
    if not isinstance(methods, list) or not all(isinstance(method, str) for method in methods):
        raise UserError(f"{path}: baseline {methods!r} should be methods of src.tasks.Trivial, such as [majority]")
    data = {name: value for name, value in first.overrides.items() if name.startswith("data")}
    task = f"{NAME}.tasks.Trivial"
    return [
        Variant(
            check_name(f"{path}, baseline", f"trivial_{method}"),
            first.config,
            data | {"model": {"class_path": task, "init_args": {"method": method}}},
            {},
        )
        for method in methods
    ]


def read_variant(path: Path, number: int, content: Any, default: str | None, space: Space) -> Variant:
    """default, space: the suite's own config and space, for a variant that names none."""
    needed, others = ("name",), ("overrides", "published", "after", "space")
    needed, others = ((*needed, "config"), others) if default is None else (needed, ("config", *others))
    content = read_keys(f"{path}, variant {number}", content, needed, others)
    name, configs = check_name(f"{path}, variant {number}: name", content["name"]), path.parent.parent
    config = configs / f"{content.get('config', default)}.yaml"
    if not config.is_file():
        near = suggest(config.stem, [found.stem for found in configs.glob("*.yaml")])
        raise UserError(f"{path}, variant {name}: there is no config {config}{near}")
    where = f"{path}, variant {name}"
    published = read_published(where, content.get("published") or {})
    own = read_space(where, content["space"]) if "space" in content else space
    return Variant(name, config, read_overrides(where, content), published, content.get("after"), own)


def of_fold(variant: Variant, fold: int) -> Variant:
    """The variant on one fold; what it reads is of the same fold."""
    after = variant.after and f"{variant.after}_fold{fold}"
    overrides = variant.overrides | {"data.fold": fold}
    return replace(variant, name=f"{variant.name}_fold{fold}", overrides=overrides, after=after)
