"""Tuning: the same number of trials for every variant of a suite, drawn from spaces of one size, measured on val alone.

Trials are drawn at random (Bergstra & Bengio 2012), each from a generator of its own, so that a trial depends on nothing but
the suite's name, the variant and its number. Optuna keeps them in RUNS_DIR/SUITE_trials/optuna.log; a trial's run folder is
RUNS_DIR/SUITE_trials/VARIANT_trial<n>/seed<k>. The choices for all variants are RUNS_DIR/SUITE_trials/chosen.json.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules import UserError

from ..config.documents import read_json
from ..runs.files import digest_of
from ..runs.results import Tuned
from ..runs.schema import problem
from .definition import Suite, Variant, scaled
from .space import Space

if TYPE_CHECKING:
    import optuna

TRIALS, CHOSEN = "{}_trials", "chosen.json"


def tuned_variants(suite: Suite) -> list[Variant]:
    """The variants that have a space; of folds, the first."""
    found = [variant for variant in suite.variants if variant.space]
    if not found:
        raise UserError(
            f"{suite.path} has no space to search: give it one, such as `space: {{model.optimizer.lr: ...}}`"
        )
    return found


def open_study(folder: Path, name: str) -> optuna.Study:
    """The trials of a variant so far, in a file that survives a kill."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UserError("Optuna is not installed: `pip install .[tune]`") from error
    optuna.logging.set_verbosity(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def draw_trials(study: optuna.Study, suite: Suite, variant: Variant, trials: int) -> list[optuna.trial.FrozenTrial]:
    """The first trials of a study, of which those that are missing are drawn."""
    import optuna

    given = distributions(variant.space)
    for number in range(len(study.trials), trials):
        study.sampler = optuna.samplers.RandomSampler(int(digest_of([suite.name, variant.name, number])[:8], 16))
        study.ask(given)
    found = study.trials[:trials]
    for trial in found:
        if trial.distributions != given:
            raise UserError(
                f"{variant.name} was tuned in another space than {suite.path} has now: restore it, or move "
                f"{TRIALS.format(suite.name)} away to tune anew"
            )
    return found


def distributions(space: Space) -> dict[str, Any]:
    from optuna import distributions as kinds

    found: dict[str, Any] = {}
    for option, values in space.items():
        if isinstance(values, list):
            found[option] = kinds.CategoricalDistribution(values)
        else:
            kind = kinds.IntDistribution if values.get("int") else kinds.FloatDistribution
            found[option] = kind(values["low"], values["high"], log=bool(values.get("log")))
    return found


def trial_folder(suite: Suite, variant: Variant, number: int, folder: Path) -> Path:
    """The run folder of a trial, given the folder of all trials."""
    return folder / f"{variant.name}_trial{number}" / f"seed{suite.seeds[0]}"


def trial_options(suite: Suite, variant: Variant, trial: optuna.trial.FrozenTrial, runs_dir: Path) -> list[str]:
    """The arguments of src.fit for a trial, which never reads the test split."""
    changed = replace(variant, overrides=variant.overrides | trial.params)
    if suite.tune is not None and suite.tune.scale != 1:
        suite = replace(suite, budget=scaled(suite.path, suite.budget, suite.tune.scale))
    words = suite.options(changed, suite.seeds[0], runs_dir)
    names = {
        "--experiment": TRIALS.format(suite.name),
        "--cell": f"{variant.name}_trial{trial.number}",
        "--suite": "null",
    }
    for name, value in names.items():
        words[words.index(name) + 1] = value
    return [*words, "--test", "false", "--resume", "auto"]


def expected_best(values: Sequence[float], higher_is_better: bool = True) -> np.ndarray:
    """The expected best of n trials drawn from these, for n from 1 to their number (Dodge et al. 2019, equation 4)."""
    ordered = np.sort(np.asarray(values, dtype=np.float64) * (1 if higher_is_better else -1))
    n = np.arange(1, len(ordered) + 1)
    below = (n / len(ordered))[:, None] ** n  # (values, n): that all n draws are at most this value
    before = ((n - 1) / len(ordered))[:, None] ** n
    return (ordered[:, None] * (below - before)).sum(axis=0) * (1 if higher_is_better else -1)


def with_choices(suite: Suite, runs_dir: Path) -> Suite:
    """The suite with what tuning chose, or as it is where it was not tuned.

    Raises:
        UserError: chosen.json is broken, of another space, or lacks a variant.
    """
    path = runs_dir / TRIALS.format(suite.name) / CHOSEN
    if not path.is_file() or not any(variant.space for variant in suite.variants):
        return suite
    content = read_json(path)
    if found := problem(content, dict[str, Tuned], "chosen"):
        raise UserError(f"{path}: {found}: tune again")
    variants = []
    for variant in suite.variants:
        if not variant.space:
            variants.append(variant)
            continue
        choice = content.get(base_name(variant))
        if choice is None or choice["options"].keys() != variant.space.keys():
            what = "was not tuned as the others were" if choice is None else "was tuned in another space"
            raise UserError(f"{variant.name} {what} (see {path}): run tune again with as many trials")
        variants.append(replace(variant, overrides=variant.overrides | choice["options"], tuned=choice))
    return replace(suite, variants=tuple(variants))


def base_name(variant: Variant) -> str:
    """The name of a variant without its fold: all folds have the choices of the first."""
    fold = variant.overrides.get("data.fold")
    return variant.name if fold is None else f"{variant.name.removesuffix(f'_fold{fold}')}_fold0"
