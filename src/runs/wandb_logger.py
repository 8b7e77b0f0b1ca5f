"""Logging to W&B, offline unless WANDB_MODE=online, and reading runs back from its server.

A W&B run has the options that were chosen as its config, that is those that differ from the defaults; results.json under
`results` in its summary; and the files config.yaml, data.json and environment.json in its folder `record`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import wandb
import yaml
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from datamodules import UserError

from ..config.names import check_name
from ..config.secrets import redacted_command
from .folder import Run

RECORD = ("config.yaml", "data.json", "environment.json")  # files of a run folder that W&B keeps
WAIT_TO_BEGIN, WAIT_TO_END = 30.0, 60.0  # seconds to wait for W&B's server before continuing without it


def wandb_mode() -> str:
    """WANDB_MODE, which is set to `offline` where the environment does not say: nothing is uploaded unasked."""
    return os.environ.setdefault("WANDB_MODE", "offline")


class PatientWandbLogger(WandbLogger):
    """Switches to offline where W&B's server is unreachable, slow or refuses; `wandb sync` uploads the run later.

    Args:
        folder: the run folder, where W&B's files are written.
        run_id: W&B's id, the same for all parts of a run.
        options: of WandbLogger.
    """

    def __init__(self, folder: Path, run_id: str, **options) -> None:
        mode = wandb_mode()
        os.environ.setdefault("WANDB_SILENT", "true")
        super().__init__(
            save_dir=str(folder),
            project="bytebench",
            id=run_id,
            mode=mode,  # otherwise W&B may remember the mode of an earlier run in this process
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(
                init_timeout=WAIT_TO_BEGIN,
                finish_timeout=WAIT_TO_END,
                x_disable_meta=redacted_command(sys.argv) != sys.argv,  # it has the command as it was typed
            ),
            **options,
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it always, W&B warns of it always

    @property
    @rank_zero_experiment
    def experiment(self):
        if self._experiment is None and wandb_mode() == "online":
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


def finish_wandb(run: Run) -> None:
    """Log what `fetch_runs` reads back, and end the W&B run, if there is one."""
    if wandb.run is not None:
        place = Path(wandb.run.dir, "record")
        place.mkdir(exist_ok=True)
        for name in RECORD:
            shutil.copyfile(run.folder / name, place / name)
            wandb.save(str(place / name), base_path=wandb.run.dir, policy="now")
        wandb.run.summary["results"] = run.read("results.json")
        wandb.finish()


def fetch_runs(path: str, folder: Path) -> list[Run]:
    """Download finished runs from W&B as run folders under `folder`, without checkpoints and predictions.

    Args:
        path: ENTITY/PROJECT, or ENTITY/PROJECT/GROUP for one experiment.
        folder: where the run folders are written.

    Raises:
        UserError: the path does not exist, holds no finished run, or the server cannot be reached.
    """
    entity, _, rest = path.partition("/")
    project, _, group = rest.partition("/")
    if not entity or not project:
        raise UserError(f"--from-wandb {path}: give ENTITY/PROJECT or ENTITY/PROJECT/GROUP")
    try:
        filters = {"group": group} if group else {}
        found = [
            write_record(run, folder / check_name("a run's id", run.id))
            for run in wandb.Api().runs(f"{entity}/{project}", filters, lazy=False)
        ]
    except (wandb.Error, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--from-wandb {path}: {reason}: check the name, the network and `wandb login`") from error
    runs = [run for run in found if run is not None]
    if not runs:
        raise UserError(f"--from-wandb {path} holds no finished run of src.fit: check the name, or sync the runs")
    return runs


def write_record(fetched, folder: Path) -> Run | None:
    """The run folder of a run from W&B's API; None if it has not finished or was not made by src.fit."""
    results = plain(fetched.summary.get("results"))
    if not results:
        return None
    folder.mkdir(parents=True)
    run = Run(folder)
    if record := fetched.config.get("record"):  # of versions up to 0.2: in the config, beside all options
        config = {name: value for name, value in fetched.config.items() if name != "record"}
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        for name in ("data", "environment"):
            run.write(f"{name}.json", record.get(name))
    else:
        for file in fetched.files(names=[f"record/{name}" for name in RECORD]):
            file.download(root=str(folder.parent / f".{folder.name}"), replace=True).close()
        found = folder.parent / f".{folder.name}" / "record"
        if not all((found / name).is_file() for name in RECORD):
            return None
        for name in RECORD:
            shutil.move(found / name, folder / name)
    run.write("results.json", results)
    history = pd.DataFrame(fetched.history(samples=1000, pandas=False))
    history = history.rename(columns={"trainer/global_step": "step"})
    kept = [name for name in history if name in ("epoch", "step") or str(name).startswith(("train/", "val/"))]
    history[kept].to_csv(folder / "metrics.csv", index=False)
    return run


def plain(value):
    """W&B's nested summaries as plain dicts."""
    return {name: plain(v) for name, v in value.items()} if hasattr(value, "items") else value
