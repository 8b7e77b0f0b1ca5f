"""Nothing lost on the way: the checkpoint that a run goes on from, guards while it trains, and what `--resume auto` reads.

last.ckpt is what the results are measured on and what a run goes on from: weights, optimizer, schedule, averages, the
place in the data and what callbacks keep. There is no random state in it: order, augmentation and dropout are functions
of seed, epoch and step. It is written aside and renamed; the one before it stays as previous.ckpt.
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
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from datamodules import Batch, UserError

from ..metrics.classification import metrics_of
from ..runs.folder import BEST, LAST, PREVIOUS

SAVE_EVERY = 10 * 60.0  # seconds
ASK_EVERY = 10  # steps; several ranks agree this often on whether to save or stop
STOPPED = 128 + signal.SIGTERM  # exit status of a run that was stopped


class Recovery(Checkpoint):
    """Saves last.ckpt after every epoch, every ten minutes and on SIGTERM, which then ends the run with status 143; keeps as
    best.ckpt what had most of `monitor` after an epoch. A loss that is infinite or not a number stops the run, unsaved. On a
    GPU it is looked at one step later, so that no step waits.

    saving: False guards the run and saves nothing.
    validated: the last metrics of the validation split; a run that goes on after its training has no others.
    """

    def __init__(self, folder: Path, monitor: str, saving: bool = True) -> None:
        self.folder, self.monitor, self.saving = folder, monitor, saving
        self.best: float | None = None
        self.validated: dict[str, float] = {}
        self.told_to_stop = False
        self.trained = False  # by this process
        self.saved_at = monotonic()
        self.saved_step = -1
        self.unchecked: deque[tuple[Tensor, int, Batch]] = deque()  # is the loss finite, of which step

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
        if trainer.world_size > 1 and trainer.global_step % ASK_EVERY != 1:
            return
        # what this step logs is written after this hook: unless every step logs, save after one that does not
        every = cast("Any", trainer).log_every_n_steps
        if every > 1 and trainer.global_step % every == 0:
            return
        stop = self.any_rank(trainer, self.told_to_stop)
        due = stop or self.any_rank(trainer, monotonic() - self.saved_at > SAVE_EVERY)
        # what was gathered of an epoch by a probe is in no checkpoint; it begins its epoch again
        if due and pl_module.resumes_inside_epochs:
            self.save(trainer)
        if stop:
            self.stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = metrics_of(trainer, "val")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = self.validated.get(self.monitor)
        better = found is not None and (self.best is None or found > self.best)
        if better:
            self.best = found
        self.save(trainer, best=better)
        if self.any_rank(trainer, self.told_to_stop):
            self.stop(trainer)

    def stop(self, trainer: L.Trainer) -> NoReturn:
        saved = (
            f"the last checkpoint is after step {self.saved_step}" if self.saved_step >= 0 else "nothing was saved yet"
        )
        if trainer.is_global_zero:
            print(
                f"stopped by SIGTERM after step {trainer.global_step}; {saved}: the same command with --resume auto goes on",
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
                f"free): {kept}; make room, then the same command with --resume auto goes on"
            ) from error
        self.saved_at, self.saved_step = monotonic(), trainer.global_step

    def check_losses(self, keep: int) -> None:
        """Look at the losses of all steps but the last `keep`. All ranks have the same."""
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
    """The same bytes under another name: on disk once where the file system has hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def error_line(error: Exception) -> str:
    """What an error says, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0] if text else type(error).__name__
