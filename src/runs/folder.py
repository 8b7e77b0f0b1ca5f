"""The run folder: what a run leaves behind, and how it is read back.

runs/<experiment>/<cell>/seed<k>/
  config.yaml         the complete configuration; `python -m src.fit --config` takes it again
  environment.json    git commit, packages, hardware, torch's settings, W&B's run id; a run that resumed also has
                      environment.1.json, environment.2.json, ... for its later parts
  data.json           fingerprint of the data's bytes, sizes and members of the splits, the data spec
  metrics.csv         losses and metrics over training, see metrics_log.py
  results.json        final metrics and costs: see `Results`; written last
  predictions.npz     for every test sample its `key`, `sample` (a hash of the key, ascending) and `target`, what was
                      predicted: the class `predicted`, or `scores` (samples, classes); and its `cluster`, where the data
                      have clusters of several samples
  predictions_bbox.json, predictions_segm.json
                      for detection instead: the boxes and the masks found in the test images, each in COCO's format of
                      results; older runs have one predictions.json
  checkpoints/        last.ckpt, the one before it as previous.ckpt, best.ckpt, with their digests, see checkpoints.py
  wandb/              W&B's files
Beside it lies seed<k>.lock while a process trains the run, see lock.py.

A run is killed at any moment without harm: every file is written aside and renamed (files.py), a folder begins under another
name, and results.json makes a run finished.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from datamodules import UserError

from ..config.documents import read_json, read_yaml
from ..config.package import with_current_class_paths
from .checkpoints import load_checkpoint
from .files import PART, digest_of, json_text, put_in_place, sha256_of, write_file
from .identity import CODE, changes, identity
from .lock import owned
from .results import Results
from .schema import FILES, check

BEGUN = ("config.yaml", "data.json", "environment.json")  # what every run folder has
# What a copy of a run has, its results last: no checkpoints, pictures or other evaluations, and nothing of W&B
COPIED = (
    "config.yaml",
    "data.json",
    "environment*.json",
    "metrics.csv",
    "predictions*",
    "weights.json",
    "stress_*.json",
    "results.json",
)


def rank_zero(method: Callable[..., None]) -> Callable[..., None]:
    """A method that does nothing on other ranks than 0."""

    @wraps(method)
    def call(*args: Any, **options: Any) -> None:
        if is_rank_zero():
            method(*args, **options)

    return call


def is_rank_zero() -> bool:
    from lightning.pytorch.utilities import rank_zero_only  # takes seconds; reading a run does without

    return cast("Any", rank_zero_only).rank == 0


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Keeps other processes from training this run; the first rank owns it for all.

        Raises:
            UserError: another process trains it.
        """
        if not is_rank_zero():
            yield
            return
        with owned(self.folder, "wait for it, or give another --cell"):
            yield

    @rank_zero
    def begin(self, config: dict, data: dict, wandb_id: str, frozen: str | None = None) -> None:
        """Make the folder, with config.yaml, data.json and environment.json. An older run of this name is kept as
        seed<k>.1, .2, ...

        Args:
            config: the options.
            data: what data.json holds.
            wandb_id: W&B's id of the run.
            frozen: hash of its suite's claims and choices, known before training.
        """
        folder, aside = self.folder, self.folder.with_name(self.folder.name + PART)
        if aside.exists():
            shutil.rmtree(aside)
        from .environment import environment  # imports torch

        (aside / "checkpoints").mkdir(parents=True)
        texts = {
            "config.yaml": yaml.safe_dump(config, sort_keys=False),
            "data.json": json_text(data),
            "environment.json": json_text(
                {"wandb_id": wandb_id, **({"frozen": frozen} if frozen else {}), **environment()}
            ),
        }
        for name, text in texts.items():
            write_file(aside / name, text)
        if folder.exists():
            number = 1
            while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
                number += 1
            put_in_place(folder, kept)
            print(f"the run that was in {folder} is kept as {kept}", file=sys.stderr)
        put_in_place(aside, folder)

    @rank_zero
    def resume(self, wandb_id: str) -> None:
        """Record that the run resumes here."""
        from .environment import environment

        for left in (*self.folder.glob(f"*{PART}"), *self.folder.glob(f"checkpoints/*{PART}")):
            left.unlink()
        number = 1 + len(list(self.folder.glob("environment.*.json")))
        self.write(f"environment.{number}.json", {"wandb_id": wandb_id, **environment()})

    def check_begun(self) -> None:
        """Raises UserError where a file that every run begins with is missing or broken."""
        for name in BEGUN:
            if not (self.folder / name).is_file():
                raise UserError(
                    f"{self.folder} has no {name}: restore it, or leave --resume out to train anew (this run is kept beside)"
                )
        self.config(), self.read("data.json"), self.read("environment.json")

    def check_options(self, began: dict, now: dict) -> None:
        """Raises UserError where options or code, apart from places, are not those that the run began with.

        Args:
            began: the run's config with today's defaults for options that it lacks.
            now: the present config.
        """
        did = "finished" if self.finished else "began"
        advice = (
            "give the options it had, another --cell, or leave --resume out to train anew (this run is kept beside)"
        )
        for name, (before, after) in changes(began, now).items():
            raise UserError(f"{self.folder} {did} with {name} {before}, this is {after}: {advice}")
        if (code := self.code) != CODE:
            raise UserError(
                f"{self.folder} {did} with code of version {code}, this is {CODE}, which computes other numbers: {advice}"
            )

    def check_data(self, data: dict) -> None:
        """Raises UserError where the data are not those that the run began with, given what the datamodule says of them."""
        if not agrees(self.read("data.json"), data):
            raise UserError(f"{self.folder} began with other data (see its data.json): give those, or another --cell")

    @property
    def code(self) -> int:
        """The version of what the code computed; version 0.1 did not record it, and its runs repeat to the bit."""
        return self.read("environment.json").get("code", 1)

    def identity(self) -> str:
        """One hash of its config without places, its data and its code: see identity.py."""
        return identity(read_config(self.folder / "config.yaml", current=False), self.read("data.json"), self.code)

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

    @rank_zero
    def write(self, name: str, content: dict | list) -> None:
        """Write a JSON file of the run, whole or not at all."""
        write_file(self.folder / name, json_text(content))

    @rank_zero
    def write_predictions(self, name: str, predictions: dict[str, list[dict]] | dict[str, np.ndarray]) -> None:
        """Write COCO's results of each kind as NAME_KIND.json, or arrays as NAME.npz."""
        arrays: dict[str, Any] = {}
        for kind, found in predictions.items():
            if isinstance(found, list):
                self.write(f"{name}_{kind}.json", found)
            else:
                arrays[kind] = found
        if arrays:
            content = io.BytesIO()
            np.savez_compressed(content, **arrays)
            write_file(self.folder / f"{name}.npz", content.getbuffer())

    def predictions_sha256(self) -> str | None:
        """The digest of the file of predictions, or one of the digests of both files of a detection; None without any."""
        names = ("predictions.npz", "predictions_bbox.json", "predictions_segm.json", "predictions.json")
        digests = [sha256_of(path) for name in names if (path := self.folder / name).is_file()]
        return digest_of(digests) if len(digests) > 1 else next(iter(digests), None)

    def read(self, name: str) -> dict:
        """Read a JSON file of the run. Raises UserError where it is missing or broken."""
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{self.folder} has no {name}: give a run folder that `python -m src.fit` has finished")
        content = read_json(path)
        if name in FILES:
            check(content, FILES[name], path)
        return content

    def copied_files(self) -> list[Path]:
        """The files that a copy of the run has, results.json last; no links, as what they point to is not the run's."""
        found = [path for pattern in COPIED for path in sorted(self.folder.glob(pattern))]
        return [path for path in found if path.is_file() and not path.is_symlink() and path.suffix != PART]

    def weights(self, checkpoint: str = "last") -> dict:
        """The model's tensors of a checkpoint."""
        return load_checkpoint(self.folder / "checkpoints" / f"{checkpoint}.ckpt")["state_dict"]


def read_config(path: Path, current: bool = True) -> dict:
    """A config.yaml.

    Args:
        path: the file.
        current: whether class paths of older versions become what they are called now.

    Raises:
        UserError: it is missing or not valid YAML.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} has no config.yaml: it is no run folder")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no options: fix it, or leave the run out")
    return with_current_class_paths(content) if current else content


def agrees(stored: Any, now: Any) -> bool:
    """Whether all that a file of an older version says holds now; newer versions write more keys."""
    if isinstance(stored, dict) and isinstance(now, dict):
        return all(name in now and agrees(value, now[name]) for name, value in stored.items())
    return stored == now


def find_runs(paths: list[Path]) -> list[Run]:
    """The finished runs in some folders, each being a run or holding runs at any depth."""
    runs = []
    for path in paths:
        found = sorted(path.rglob("results.json")) if path.is_dir() else []
        if not found:
            raise UserError(f"{path} holds no finished run (no results.json in it): give a run folder or one above")
        runs += [Run(file.parent) for file in found]
    return list(dict.fromkeys(runs))


def find_finished(folder: Path) -> list[Run]:
    """The finished runs in the folder of an experiment; none where there is no such folder."""
    return [Run(file.parent) for file in sorted(folder.glob("*/seed*/results.json"))]


def find_unfinished(paths: list[Path]) -> list[Path]:
    """The run folders in some folders that have no results yet; what lies in a run folder, such as W&B's copies, is none."""
    begun = {file.parent for path in paths for file in path.rglob("environment.json") if file.parent.suffix != PART}
    outer = {folder for folder in begun if begun.isdisjoint(folder.parents)}
    return sorted(folder for folder in outer if not (folder / "results.json").is_file())
