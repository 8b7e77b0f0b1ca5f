"""One run's record, read from its folder: what rules, statistics and pages ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from datamodules import UserError

from ..runs.folder import Run, flat

MAIN_METRICS = ("map", "top1", "loss")  # the first that a run has is what it is compared by
LOWER_IS_BETTER = ("loss",)


@dataclass(frozen=True)
class Record:
    """A finished run: `results`, `data` and `environment` are its JSON files, `config` its config.yaml with dotted names."""

    run: Run
    results: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def of(cls, run: Run) -> Record:
        """Raises UserError where a file of the folder is missing or broken."""
        config = read_config(run.folder)
        return cls(run, run.read("results.json"), run.read("data.json"), run.read("environment.json"), config)

    @property
    def folder(self) -> str:
        return str(self.run.folder)

    @property
    def seed(self) -> int:
        return self.results["seed"]

    @property
    def fold(self) -> int | None:
        """Which part of the data was the test split, where a cell is tried on several."""
        return self.config.get("data.init_args.fold")

    @property
    def repeat(self) -> tuple[int, int | None]:
        """What makes a run of a cell one of its own: seed and fold."""
        return self.seed, self.fold

    @property
    def cell(self) -> tuple[str, str]:
        """(experiment, cell). The folds of a cell, named NAME_fold0, NAME_fold1, ..., are one cell."""
        return self.results["experiment"], self.results["cell"].removesuffix(f"_fold{self.fold}")

    def metrics(self, split: str) -> dict[str, float]:
        """Its metrics on a split, without counts; COCO's -1 says that there was nothing to measure."""
        found = self.results["metrics"].get(split, {})
        return {name: v for name, v in found.items() if name not in ("samples", "map_classes") and v != -1}

    def samples(self, split: str) -> int | None:
        return self.results["metrics"].get(split, {}).get("samples")

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


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml with dotted names. Raises UserError where it is missing or no YAML."""
    path = folder / "config.yaml"
    try:
        return flat(yaml.safe_load(path.read_text()))
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no config.yaml: it is no run folder") from error
    except (yaml.YAMLError, AttributeError) as error:
        raise UserError(f"{path} is not valid YAML: mend it, or leave the run out") from error


def main_metric(records: list[Record], split: str) -> str:
    """What runs are compared by. Raises UserError where the split was not measured."""
    for name in MAIN_METRICS:
        if any(name in record.metrics(split) for record in records):
            return name
    raise UserError(f"no run has metrics of the {split} split: choose another --split")
