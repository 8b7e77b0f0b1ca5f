"""Checkpoints that a run resumes from, and checks while it trains.

last.ckpt is what the results are measured on and what a run resumes from: weights, optimizer, schedule, averages, the
position in the data and the state of callbacks. It holds no random state: order, augmentation and dropout are functions of
seed, epoch and step. It is written to a temporary file and renamed; the one before it stays as previous.ckpt.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn, cast

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from torch import Tensor

from datamodules import Batch, UserError

from ..config.command import STOPPED
from ..metrics.logged import metrics_of
from ..metrics.registry import metric_named
from ..runs.folder import BEST, LAST, PREVIOUS

SAVE_EVERY = 10 * 60.0  # seconds
AGREE_EVERY = 10  # steps; several ranks agree this often on whether to save or stop


class Checkpointing(Checkpoint):
    """Saves what a run resumes from, and stops it when it is told to or when the loss is no longer finite.

    last.ckpt is written after every epoch, every ten minutes and on SIGTERM, which then ends the run with status 143.
    best.ckpt is the checkpoint after the epoch with the best `monitor`. A loss that is infinite or NaN stops the run without
    saving; on a GPU the loss is checked one step later, so that no step waits for it.

    Args:
        folder: where checkpoints are written.
        monitor: the validation metric that best.ckpt is chosen by; the registry of metrics knows its direction.
        saving: False checks the loss and saves nothing.

    Attributes:
        validated: the last metrics of the validation split, restored when a run resumes after its training.
    """

    state_key = "Recovery"  # its name in checkpoints of version 0.1

    def __init__(self, folder: Path, monitor: str, saving: bool = True) -> None:
        self.folder, self.monitor, self.saving = folder, monitor, saving
        self.higher_is_better = metric_named(monitor).higher_is_better
        self.best: float | None = None
        self.validated: dict[str, float] = {}
        self.told_to_stop = False
        self.trained = False  # by this process
        self.saved_at = monotonic()
        self.saved_step = -1
        self.unchecked: deque[tuple[Tensor, int, Batch]] = deque()  # whether the loss is finite, at which step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved_at, self.trained = monotonic(), True
        # Lightning's own handler talks to other ranks at any moment, which may be amid another collective
        signal.signal(signal.SIGTERM, self.stop_soon)

    def stop_soon(self, number: int, frame: object) -> None:
        self.told_to_stop = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs, batch, batch_idx) -> None:
        if isinstance(outputs, dict) and "loss" in outputs:
            self.unchecked.append((outputs["loss"].detach().isfinite(), trainer.global_step, batch))
        self.check_losses(keep=int(pl_module.device.type != "cpu"))
        if trainer.world_size > 1 and trainer.global_step % AGREE_EVERY != 1:
            return
        # this step's metrics are written after this hook: unless every step logs, save after one that does not
        every = cast("Any", trainer).log_every_n_steps
        if every > 1 and trainer.global_step % every == 0:
            return
        stop = self.any_rank(trainer, self.told_to_stop)
        due = stop or self.any_rank(trainer, monotonic() - self.saved_at > SAVE_EVERY)
        # a probe's features of this epoch are in no checkpoint: it starts the epoch again
        if due and pl_module.resumes_inside_epochs:
            self.save(trainer)
        if stop:
            self.stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = metrics_of(trainer, "val")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = self.validated.get(self.monitor)
        better = found is not None and self.is_better(found)
        if better:
            self.best = found
        self.save(trainer, best=better)
        if self.any_rank(trainer, self.told_to_stop):
            self.stop(trainer)

    def is_better(self, value: float) -> bool:
        return self.best is None or (value > self.best if self.higher_is_better else value < self.best)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """A run that resumes after its last step trains nothing, and Lightning then leaves out the end of training."""
        if stage == "fit" and not self.trained:
            for callback in cast("Any", trainer).callbacks:
                if isinstance(callback, WeightAveraging):
                    callback.on_train_end(trainer, pl_module)

    def stop(self, trainer: L.Trainer) -> NoReturn:
        saved = (
            f"the last checkpoint is after step {self.saved_step}" if self.saved_step >= 0 else "nothing was saved yet"
        )
        if trainer.is_global_zero:
            print(
                f"stopped by SIGTERM after step {trainer.global_step}; {saved}: run it again with --resume auto to continue",
                file=sys.stderr,
            )
        sys.exit(STOPPED)

    def save(self, trainer: L.Trainer, best: bool = False) -> None:
        """On all ranks together."""
        self.check_losses(keep=0)
        if not self.saving:
            return
        last, aside = self.folder / LAST, self.folder / f"{LAST}.part"
        try:
            trainer.save_checkpoint(aside)
            if trainer.is_global_zero:
                with open(aside, "rb") as written:
                    os.fsync(written.fileno())
                if last.exists():
                    os.replace(last, self.folder / PREVIOUS)
                os.replace(aside, last)
                if best:
                    same_file(last, aside)
                    os.replace(aside, self.folder / BEST)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where a disk is full
            aside.unlink(missing_ok=True)
            free = shutil.disk_usage(self.folder).free if self.folder.exists() else 0
            kept = (
                f"the one after step {self.saved_step} is kept" if self.saved_step >= 0 else "there is none before it"
            )
            raise UserError(
                f"{last} could not be written after step {trainer.global_step} ({error_line(error)}; {free / 1e6:,.0f} MB "
                f"free): {kept}; free some space, then run the same command with --resume auto to continue"
            ) from error
        self.saved_at, self.saved_step = monotonic(), trainer.global_step

    def check_losses(self, keep: int) -> None:
        """Check the losses of all steps but the last `keep`. All ranks have the same losses."""
        while len(self.unchecked) > keep:
            finite, step, batch = self.unchecked.popleft()
            if not bool(finite):
                good = f"{self.folder / LAST}, after step {self.saved_step}" if self.saved_step >= 0 else "none"
                raise UserError(
                    f"the loss of step {step} is not finite, on samples {', '.join(batch.keys)}; last good checkpoint: "
                    f"{good}: lower the learning rate, clip gradients, or look at these samples"
                )

    def any_rank(self, trainer: L.Trainer, flag: bool) -> bool:
        return trainer.strategy.reduce_boolean_decision(flag, all=False)

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self.validated, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated, self.best = state_dict["validated"], state_dict["best"]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        self.saved_step = checkpoint["global_step"]


def same_file(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def error_line(error: Exception) -> str:
    """The first line of an error's message."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0] if text else type(error).__name__
