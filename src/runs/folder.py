"""The run folder: what a run leaves behind, and how it is read back.

runs/<experiment>/<cell>/seed<k>/
  config.yaml         the complete configuration; `python -m src.fit --config` takes it again
  environment.json    git commit, packages, hardware, torch's switches, W&B's id of the run; where a run went on after a stop,
                      environment.1.json, environment.2.json, ... say the same of the later parts
  data.json           fingerprint of the data's bytes, size and membership of the splits, the data spec
  metrics.csv         losses and metrics over training
  results.json        final metrics with their sample counts, parameters, FLOPs, samples/s, peak memory, wall time, energy
  predictions.npz     of every test sample: `sample`, a number that stands for its name, ascending; `target`; with one label
                      the class `predicted`, with several the `scores` (samples, classes)
  predictions.json    instead, of detection: what was found in the test images, in COCO's format of results
  checkpoints/        last.ckpt, the one before it as previous.ckpt, best.ckpt
  wandb/              W&B's files
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

from datamodules import UserError

from .environment import environment

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
# What may change between the parts of a run: where and how it is computed, not what
PLACES = {f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar")}
PLACES |= {"runs_dir", "data.init_args.num_workers", "data.init_args.data_dir"}


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @rank_zero_only
    def begin(self, config: dict, data: dict, wandb_id: str) -> None:
        """Make the folder, with config.yaml, data.json and environment.json. An older run of that name is kept as
        seed<k>.1, .2, ..."""
        folder = self.folder
        if folder.exists():
            number = 1
            while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
                number += 1
            folder.rename(kept)
            print(f"the run that was in {folder} is kept as {kept}", file=sys.stderr)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.write("data.json", data)
        self.write("environment.json", {"wandb_id": wandb_id, **environment()})

    def go_on(self, config: dict, data: dict, wandb_id: str) -> None:
        """Note that the run goes on here. Raises UserError where config or data are not those it began with."""
        began = flat(yaml.safe_load((self.folder / "config.yaml").read_text()))
        now = flat(config)
        for name in sorted(began.keys() | now.keys()):
            if began.get(name) != now.get(name) and name not in PLACES:
                raise UserError(
                    f"{self.folder} began with {name} {began.get(name)}, this is {now.get(name)}: give the options it began "
                    "with, or another --cell"
                )
        if data != self.read("data.json"):
            raise UserError(f"{self.folder} began on other data (see its data.json): give those, or another --cell")
        number = 1 + len(list(self.folder.glob("environment.*.json")))
        self.write(f"environment.{number}.json", {"wandb_id": wandb_id, **environment()})

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").is_file()

    def newest_checkpoint(self) -> Path | None:
        """What the run can go on from: last.ckpt or, with a warning, the one before it if that cannot be read."""
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

    @rank_zero_only
    def write(self, name: str, content: dict | list) -> None:
        """Write a JSON file of the run, aside and renamed; a list, which may be long, in one line."""
        aside = self.folder / f"{name}.part"
        aside.write_text(json.dumps(content, indent=1 if isinstance(content, dict) else None) + "\n")
        os.replace(aside, self.folder / name)

    @rank_zero_only
    def write_predictions(self, name: str, predictions: list[dict] | dict[str, np.ndarray]) -> None:
        """Write COCO's results as NAME.json, arrays as NAME.npz."""
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
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}): run the cell again") from error

    def weights(self, checkpoint: str = "last") -> dict:
        """The model's tensors of a checkpoint."""
        return load_checkpoint(self.folder / "checkpoints" / f"{checkpoint}.ckpt")["state_dict"]


def flat(config: dict, prefix: str = "") -> dict:
    """Nested mappings as one, its keys joined by dots."""
    found: dict = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found


def load_checkpoint(path: Path) -> dict:
    """A checkpoint's content; only tensors and plain values are loaded, never code."""
    if not path.is_file():
        raise UserError(f"{path} is missing: train the run first, or name another checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}): name another checkpoint") from error


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
