"""W&B's part in a run: offline unless WANDB_MODE=online, and never in the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

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
