"""One run's record, read from its folder: what rules, statistics and pages need of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from datamodules import UserError

from ..config.class_paths import with_current_class_paths
from ..metrics.registry import is_count, main_metric
from ..runs.folder import Run, read_config
from ..runs.identity import flat, identity
from ..runs.results import Results
from .verification import contradictions


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
        return cls(run, run.results(), data, environment, flat(with_current_class_paths(config)), found)

    @cached_property
    def contradictions(self) -> list[str]:
        """What contradicts its metrics."""
        return contradictions(self.results, self.predictions, self.run.predictions_sha256())

    @property
    def of_another_identity(self) -> bool:
        """Whether config.yaml, data.json or environment.json are not those that it was measured with."""
        return self.results.identity not in (None, self.identity)

    @property
    def verified(self) -> bool:
        """Whether its metrics were computed again from its predictions, and nothing contradicts them."""
        return self.predictions is not None and not self.contradictions and not self.of_another_identity

    @property
    def folder(self) -> str:
        return str(self.run.folder)

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

    def samples(self, split: str) -> int | None:
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
        path = self.run.folder / "metrics.csv"
        try:
            return pd.read_csv(path)
        except (FileNotFoundError, pd.errors.EmptyDataError):
            return pd.DataFrame({"epoch": [], "step": []})
        except pd.errors.ParserError as error:
            raise UserError(f"{path} is not CSV ({error}): mend it, or leave the run out") from error

    @cached_property
    def predictions(self) -> dict[str, np.ndarray] | None:
        """predictions.npz: `sample` (S,) and `target` with `predicted` or `scores`; None where they were not kept."""
        path = self.run.folder / "predictions.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path) as file:
                return dict(file)
        except (ValueError, OSError) as error:
            raise UserError(f"{path} cannot be read ({error}): remove it to compare without it") from error


def ranking_metric(records: list[Record], split: str) -> str:
    """The metric that runs are ranked by.

    Raises:
        UserError: no run was measured on the split.
    """
    found = main_metric(name for record in records for name in record.metrics(split))
    if found is None:
        raise UserError(f"no run has metrics of the {split} split: choose another --split")
    return found
