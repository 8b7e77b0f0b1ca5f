"""W&B's part in a run: offline unless WANDB_MODE=online, and never in the way; and a run's record to W&B and back.

A W&B run has the run's options as its config, beside them `record` with data.json and environment.json, and results.json
under `results` in its summary.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import wandb
import yaml
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from datamodules import UserError

from .folder import Run

WAIT_TO_BEGIN, WAIT_TO_END = 30.0, 60.0  # seconds for W&B's server; after them the run goes on without it


class PatientWandbLogger(WandbLogger):
    """Goes on offline where W&B's server is out of reach, slow or refuses; `wandb sync` uploads the run later.

    run_id: the same for all parts of a run.
    """

    def __init__(self, folder: Path, run_id: str, **options) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        super().__init__(
            save_dir=str(folder),
            project="bytebench",
            id=run_id,
            mode=os.environ["WANDB_MODE"],  # else W&B may remember that of an earlier run of this process
            resume="allow" if os.environ["WANDB_MODE"] == "online" else None,
            settings=wandb.Settings(init_timeout=WAIT_TO_BEGIN, finish_timeout=WAIT_TO_END),
            **options,
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it always, W&B warns of it always

    @property
    @rank_zero_experiment
    def experiment(self):
        if self._experiment is None and os.environ["WANDB_MODE"] == "online":
            try:
                return super().experiment
            except (wandb.Error, OSError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                print(
                    f"warning: W&B cannot be reached ({reason}); the run is logged to {self.save_dir}/wandb, "
                    "`wandb sync` uploads it from there",
                    file=sys.stderr,
                )
                wandb.teardown()
                os.environ["WANDB_MODE"] = "offline"
                self._wandb_init |= {"mode": "offline", "resume": None}
        return super().experiment


def log_record(run: Run) -> None:
    """Give W&B what `fetch_runs` reads back; nothing where there is no W&B run."""
    if wandb.run is not None:
        record = {name: run.read(f"{name}.json") for name in ("data", "environment")}
        wandb.run.config.update({"record": record}, allow_val_change=True)
        wandb.run.summary["results"] = run.read("results.json")


def fetch_runs(path: str, folder: Path) -> list[Run]:
    """Write the records of finished runs on W&B's server as run folders under `folder`, without checkpoints and predictions.

    path: ENTITY/PROJECT, or ENTITY/PROJECT/GROUP for one experiment. Raises UserError where it does not exist, holds no
    finished run, or the server cannot be reached.
    """
    entity, _, rest = path.partition("/")
    project, _, group = rest.partition("/")
    if not entity or not project:
        raise UserError(f"--from-wandb {path}: give ENTITY/PROJECT or ENTITY/PROJECT/GROUP")
    try:
        filters = {"group": group} if group else {}
        found = [
            write_record(run, folder / run.id) for run in wandb.Api().runs(f"{entity}/{project}", filters, lazy=False)
        ]
    except (wandb.Error, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--from-wandb {path}: {reason}: check the name, the network and `wandb login`") from error
    runs = [run for run in found if run is not None]
    if not runs:
        raise UserError(f"--from-wandb {path} holds no finished run of src.fit: check the name, or sync the runs")
    return runs


def write_record(fetched, folder: Path) -> Run | None:
    """A run folder made of a run of W&B's API; None for one that has not finished or is none of src.fit's."""
    config = {name: value for name, value in fetched.config.items() if name != "record"}
    record, results = fetched.config.get("record"), plain(fetched.summary.get("results"))
    if not record or not results:
        return None
    folder.mkdir(parents=True)
    run = Run(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for name, content in (*record.items(), ("results", results)):
        run.write(f"{name}.json", content)
    history = pd.DataFrame(fetched.history(samples=1000, pandas=False))
    history = history.rename(columns={"trainer/global_step": "step"})
    kept = [name for name in history if name in ("epoch", "step") or str(name).startswith(("train/", "val/"))]
    history[kept].to_csv(folder / "metrics.csv", index=False)
    return run


def plain(value):
    """W&B's nested summaries as dicts."""
    return {name: plain(v) for name, v in value.items()} if hasattr(value, "items") else value
