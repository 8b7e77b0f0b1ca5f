"""One run's record, read from its folder: what rules, comparisons and pages need of it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules import UserError

from ..config.package import with_current_class_paths
from ..metrics.registry import METRICS, is_count, main_metric
from ..runs.curves import read_curves
from ..runs.folder import Run, read_config
from ..runs.identity import flat, identity
from ..runs.results import Results
from ..runs.schema import Options, check
from ..stats.tables import Part
from .verification import contradictions

LARGEST_ARRAYS = 8e9  # bytes of predictions, unpacked


@dataclass(frozen=True)
class Examined:
    """What the predictions of a run say.

    Args:
        contradictions: what contradicts its metrics.
        arrays: names of the arrays that were kept.
        parts: metric to what the test samples contribute to it.
    """

    contradictions: list[str]
    arrays: frozenset[str] = frozenset()
    parts: dict[str, Part] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A finished run: its results.json, data.json and environment.json, and its config.yaml with dotted names.

    Attributes:
        identity: of these files; results.json has that of the files it was written with.
    """

    run: Run
    results: Results
    data: dict[str, Any]
    environment: dict[str, Any]
    config: dict[str, Any]
    identity: str

    @classmethod
    def of(cls, run: Run) -> Record:
        """Raises UserError where a file of the folder is missing or broken."""
        config = read_config(run.folder / "config.yaml", current=False)
        data, environment = run.read("data.json"), run.read("environment.json")
        found = identity(config, data, environment.get("code", 1))
        options = flat(with_current_class_paths(config))
        check(options, Options, run.folder / "config.yaml")
        return cls(run, run.results(), data, environment, options, found)

    @cached_property
    def examined(self) -> Examined:
        """What its predictions say; they are read for this once, and not kept: of a thousand runs they fill the memory."""
        found = self.predictions
        wrong = contradictions(self.results, found, self.run.predictions_sha256())
        if found is None or wrong:
            return Examined(wrong)
        parts = {}
        for name in self.metrics("test"):
            contributions = METRICS[name].contributions if name in METRICS else None
            if contributions is not None and (values := contributions(found)) is not None:
                parts[name] = Part(found["sample"], values, found.get("cluster", found["sample"]))
        return Examined(wrong, frozenset(found), parts)

    @property
    def contradictions(self) -> list[str]:
        """What contradicts its metrics."""
        return self.examined.contradictions

    @property
    def of_another_identity(self) -> bool:
        """Whether config.yaml, data.json or environment.json are not those that it was measured with."""
        return self.results.identity not in (None, self.identity)

    @property
    def verified(self) -> bool:
        """Whether its metrics were computed again from its predictions, and nothing contradicts them."""
        return bool(self.examined.arrays) and not self.contradictions and not self.of_another_identity

    @property
    def folder(self) -> str:
        return str(self.run.folder)

    @property
    def trivial(self) -> bool:
        """Whether it is a trivial baseline, which is not trained by steps."""
        return str(self.config.get("model.class_path", "")).endswith(".Trivial")

    @property
    def seed(self) -> int:
        return self.results.seed

    @property
    def fold(self) -> int | None:
        """Which part of the data was the test split, in cross-validation."""
        return self.config.get("data.init_args.fold")

    @property
    def repeat(self) -> tuple[int, int | None]:
        """What tells the runs of a variant apart: seed and fold."""
        return self.seed, self.fold

    @property
    def variant(self) -> tuple[str, str]:
        """(experiment, name). The folds of a variant, named NAME_fold0, NAME_fold1, ..., are one variant."""
        return self.results.experiment, self.results.cell.removesuffix(f"_fold{self.fold}")

    def metrics(self, split: str) -> dict[str, float]:
        """Its metrics on a split, without counts; COCO's -1 means that there was nothing to measure."""
        found = self.results.metrics.get(split, {})
        return {name: value for name, value in found.items() if not is_count(name) and value != -1}

    def samples(self, split: str) -> float | None:
        return self.results.metrics.get(split, {}).get("samples")

    @property
    def hardware(self) -> str:
        """Where it was computed, as far as speed depends on it."""
        where = self.environment
        gpus = " + ".join(where["gpus"])
        return f"{gpus or where['cpu']}, {where['threads']} of {where['cpu_cores']} CPU cores"

    @cached_property
    def curves(self) -> pd.DataFrame:
        """metrics.csv: `epoch`, `step`, losses and metrics over training; empty where it was not kept."""
        try:
            return read_curves(self.run.folder / "metrics.csv")
        except (FileNotFoundError, pd.errors.EmptyDataError):
            return pd.DataFrame({"epoch": [], "step": []})

    @property
    def predictions(self) -> dict[str, np.ndarray] | None:
        """predictions.npz, read anew: `sample` (S,) and `target` with `predicted` or `scores`; None where they were not
        kept."""
        path = self.run.folder / "predictions.npz"
        return read_predictions(path, len(self.data["spec"]["classes"])) if path.is_file() else None


def read_predictions(path: Path, classes: int) -> dict[str, np.ndarray]:
    """predictions.npz, checked to be what metrics can be computed of.

    Raises:
        UserError: it is no archive of arrays, its arrays do not fit each other, or name classes that there are not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST_ARRAYS:
            raise ValueError(f"it would take {size / 1e9:,.0f} GB")
        with np.load(path) as file:
            found = dict(file)
        if wrong := next(predictions_problems(found, classes), None):
            raise ValueError(wrong)
    except Exception as error:  # of damaged archives: a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason}): remove it to compare without it") from error
    return found


def predictions_problems(found: dict[str, np.ndarray], classes: int) -> Iterator[str]:
    for name in ("sample", "target"):
        if name not in found:
            yield f"it has no array {name!r}"
    samples = found["sample"].size
    for name, array in found.items():
        if array.ndim == 0 or len(array) != samples or samples == 0:
            yield f"its array {name!r} is not one row for each sample"
        if array.dtype.kind not in ("U" if name in ("key", "cluster") else "iufb"):
            yield f"its array {name!r} does not hold numbers"
    target, scores = found["target"], found.get("scores")
    if found["sample"].dtype.kind != "i" or found["sample"].ndim != 1:
        yield "its array 'sample' does not hold whole numbers"
    if "predicted" in found:
        for name in ("predicted", "target"):
            array = found[name]
            if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= classes:
                yield f"its array {name!r} does not hold one of {classes} classes for each sample"
    if scores is not None and (scores.ndim != 2 or (target.ndim == 2 and target.shape != scores.shape)):
        yield f"its scores are {scores.shape}, its targets {target.shape}"


def ranking_metric(records: list[Record], split: str) -> str:
    """The metric that runs are ranked by.

    Raises:
        UserError: no run was measured on the split.
    """
    found = main_metric(name for record in records for name in record.metrics(split))
    if found is None:
        raise UserError(f"no run has metrics of the {split} split: choose another --split")
    return found
