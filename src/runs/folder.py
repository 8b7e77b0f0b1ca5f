"""The run folder: what a run leaves behind, and how it is read back.

runs/<experiment>/<cell>/seed<k>/
  config.yaml         the complete configuration; `python -m src.fit --config` takes it again
  environment.json    git commit, packages, hardware, torch's settings, W&B's run id; a run that resumed also has
                      environment.1.json, environment.2.json, ... for its later parts
  data.json           fingerprint of the data's bytes, sizes and members of the splits, the data spec
  metrics.csv         losses and metrics over training
  results.json        final metrics and costs: see `Results`
  predictions.npz     for every test sample its `key`, `sample` (a hash of the key, ascending) and `target`, and what was
                      predicted: the class `predicted`, or `scores` (samples, classes)
  predictions.json    for detection instead: the detections in the test images, in COCO's results format
  checkpoints/        last.ckpt, the one before it as previous.ckpt, best.ckpt
  wandb/              W&B's files
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from datamodules import UserError

from ..config.class_paths import with_current_class_paths
from ..config.documents import read_json, read_yaml
from .results import Results
from .schema import FILES, check

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
# Options that may change when a run resumes: where and how it is computed, not what
PLACE_OPTIONS = {
    f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar")
}
PLACE_OPTIONS |= {"runs_dir", "suite", "data.init_args.num_workers", "data.init_args.data_dir"}


def rank_zero(method: Callable[..., None]) -> Callable[..., None]:
    """A method that does nothing on other ranks than 0."""

    @wraps(method)
    def call(*args: Any, **options: Any) -> None:
        from lightning.pytorch.utilities import rank_zero_only  # takes seconds; reading a run does without

        rank_zero_only(method)(*args, **options)

    return call


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @rank_zero
    def begin(self, config: dict, data: dict, wandb_id: str) -> None:
        """Make the folder, with config.yaml, data.json and environment.json. An older run of this name is kept as
        seed<k>.1, .2, ..."""
        folder = self.folder
        if folder.exists():
            number = 1
            while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
                number += 1
            folder.rename(kept)
            print(f"the run that was in {folder} is kept as {kept}", file=sys.stderr)
        from .environment import environment  # imports torch

        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.write("data.json", data)
        self.write("environment.json", {"wandb_id": wandb_id, **environment()})

    @rank_zero
    def resume(self, wandb_id: str) -> None:
        """Record that the run resumes here."""
        from .environment import environment

        number = 1 + len(list(self.folder.glob("environment.*.json")))
        self.write(f"environment.{number}.json", {"wandb_id": wandb_id, **environment()})

    def check_unchanged(self, began: dict, now: dict, data: dict) -> None:
        """Raises UserError where options or data are not those that the run began with.

        Args:
            began: the run's config with today's defaults for options that it lacks.
            now: the present config.
            data: what the datamodule says of its data.
        """
        began, now = flat(began), flat(now)
        for name in sorted(began.keys() | now.keys()):
            if began.get(name) != now.get(name) and name not in PLACE_OPTIONS:
                raise UserError(
                    f"{self.folder} began with {name} {began.get(name)}, this is {now.get(name)}: give the options it began "
                    "with, or another --cell"
                )
        if not agrees(self.read("data.json"), data):
            raise UserError(f"{self.folder} began with other data (see its data.json): give those, or another --cell")

    def config(self) -> dict:
        """config.yaml, with class paths of older versions as they are called now.

        Raises:
            UserError: it is missing or not valid YAML.
        """
        return read_config(self.folder / "config.yaml")

    def results(self) -> Results:
        """results.json.

        Raises:
            UserError: it is missing, or does not hold the results of a run.
        """
        return Results.from_dict(self.read("results.json"), self.folder / "results.json")

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").is_file()

    def newest_checkpoint(self) -> Path | None:
        """What the run resumes from: last.ckpt or, with a warning, the one before it if that cannot be read."""
        for name in (LAST, PREVIOUS):
            path = self.folder / "checkpoints" / name
            if path.is_file():
                try:
                    load_checkpoint(path)
                except UserError as error:
                    print(f"warning: {error}; trying the one before it", file=sys.stderr)
                else:
                    return path
        return None

    @rank_zero
    def write(self, name: str, content: dict | list) -> None:
        """Write a JSON file of the run to a temporary file and rename it; lists, which may be long, on one line."""
        aside = self.folder / f"{name}.part"
        aside.write_text(json.dumps(content, indent=1 if isinstance(content, dict) else None) + "\n")
        os.replace(aside, self.folder / name)

    @rank_zero
    def write_predictions(self, name: str, predictions: list[dict] | dict[str, np.ndarray]) -> None:
        """Write COCO's results as NAME.json, or arrays as NAME.npz."""
        if isinstance(predictions, list):
            self.write(f"{name}.json", predictions)
        else:
            aside, arrays = self.folder / f"{name}.part.npz", cast("dict[str, Any]", predictions)
            np.savez_compressed(aside, **arrays)
            os.replace(aside, self.folder / f"{name}.npz")

    def read(self, name: str) -> dict:
        """Read a JSON file of the run. Raises UserError where it is missing or broken."""
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{self.folder} has no {name}: give a run folder that `python -m src.fit` has finished")
        content = read_json(path)
        if name in FILES:
            check(content, FILES[name], path)
        return content

    def weights(self, checkpoint: str = "last") -> dict:
        """The model's tensors of a checkpoint."""
        return load_checkpoint(self.folder / "checkpoints" / f"{checkpoint}.ckpt")["state_dict"]


def read_config(path: Path) -> dict:
    """A config.yaml, with class paths of older versions as they are called now.

    Raises:
        UserError: it is missing or not valid YAML.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} has no config.yaml: it is no run folder")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no options: fix it, or leave the run out")
    return with_current_class_paths(content)


def agrees(stored: Any, now: Any) -> bool:
    """Whether all that a file of an older version says holds now; newer versions write more keys."""
    if isinstance(stored, dict) and isinstance(now, dict):
        return all(name in now and agrees(value, now[name]) for name, value in stored.items())
    return stored == now


def flat(config: dict, prefix: str = "") -> dict:
    """Nested mappings as one, with dotted keys."""
    found: dict = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found


def load_checkpoint(path: Path) -> dict:
    """A checkpoint's content; only tensors and plain values are loaded, never code."""
    if not path.is_file():
        raise UserError(f"{path} is missing: train the run first, or name another checkpoint")
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a dozen kinds, by where the file is damaged
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): name another checkpoint") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path} has no weights: name another checkpoint")
    return content


def find_runs(paths: list[Path]) -> list[Run]:
    """The finished runs in some folders, each being a run or holding runs at any depth."""
    runs = []
    for path in paths:
        found = sorted(path.rglob("results.json")) if path.is_dir() else []
        if not found:
            raise UserError(f"{path} holds no finished run (no results.json in it): give a run folder or one above")
        runs += [Run(file.parent) for file in found]
    return list(dict.fromkeys(runs))


def find_unfinished(paths: list[Path]) -> list[Path]:
    """The run folders in some folders that have no results yet."""
    found = sorted({file.parent for path in paths for file in path.rglob("environment.json")})
    return [folder for folder in found if not (folder / "results.json").is_file()]
