"""Checkpoints that a run resumes from, and checks while it trains.

last.ckpt is what the results are measured on and what a run resumes from: weights, optimizer, schedule, averages, the
position in the data and the state of callbacks. It holds no random state: order, augmentation and dropout are functions of
seed, epoch and step. src/runs/checkpoints.py says how it takes the place of the one before, which stays as previous.ckpt.
"""

from __future__ import annotations

import errno
import io
import shutil
import signal
import sys
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from datamodules import Batch, UserError
from datamodules.core.signals import name_of, on_ending_signals

from ..metrics.logged import metrics_of
from ..metrics.registry import metric_named
from ..runs.checkpoints import LAST, replace_checkpoints
from ..runs.metrics_log import MetricsLog

SAVE_EVERY = 10 * 60.0  # seconds
AGREE_EVERY = 10  # steps; several ranks agree this often on whether to save or stop


class Checkpointing(Checkpoint):
    """Saves what a run resumes from, and stops it when it is told to or when the loss is no longer finite.

    last.ckpt is written after every epoch, every ten minutes, and on SIGTERM, SIGINT (Ctrl-C) or SIGHUP, which then end the
    run with status 143, 130 or 129; a second Ctrl-C ends it at once.
    best.ckpt is the checkpoint after the epoch with the best `monitor`. A loss that is infinite or NaN stops the run without
    saving; on a GPU the loss is checked one step later, so that no step waits for it.

    Args:
        folder: where checkpoints are written.
        monitor: the validation metric that best.ckpt is chosen by; the registry of metrics knows its direction.
        metrics_log: metrics.csv; a checkpoint knows the rows before it.
        saving: False checks the loss and saves nothing.

    Attributes:
        validated: the last metrics of the validation split, restored when a run resumes after its training.
    """

    state_key = "Recovery"  # its name in checkpoints of version 0.1

    def __init__(self, folder: Path, monitor: str, metrics_log: MetricsLog, saving: bool = True) -> None:
        self.folder, self.monitor, self.metrics_log, self.saving = folder, monitor, metrics_log, saving
        self.higher_is_better = metric_named(monitor).higher_is_better
        self.best: float | None = None
        self.validated: dict[str, float] = {}
        self.told_to_stop: int | None = None  # by this signal
        self.trained = False  # by this process
        self.saved_at = monotonic()
        self.saved_step = -1
        self.unchecked: deque[tuple[Tensor, int, Batch]] = deque()  # whether the loss is finite, at which step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved_at, self.trained = monotonic(), True
        # Lightning's own handler talks to other ranks at any moment, which may be amid another collective
        on_ending_signals(self.stop_soon)

    def stop_soon(self, number: int) -> None:
        self.told_to_stop = number

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
        stop = self.any_rank(trainer, self.told_to_stop is not None)
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
        if self.any_rank(trainer, self.told_to_stop is not None):
            self.stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.any_rank(trainer, self.told_to_stop is not None):
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
        number = self.told_to_stop or signal.SIGTERM  # another rank was told
        if trainer.is_global_zero:
            print(
                f"stopped by {name_of(number)} after step {trainer.global_step}; {saved}: run it again with --resume auto "
                "to continue",
                file=sys.stderr,
            )
        sys.exit(128 + number)

    def save(self, trainer: L.Trainer, best: bool = False) -> None:
        """On all ranks together."""
        self.check_losses(keep=0)
        if not self.saving:
            return
        cast("Any", trainer).datamodule.gather_bad_samples()  # its state is in the checkpoint
        memory = Memory()
        trainer.strategy.checkpoint_io, usual = memory, trainer.strategy.checkpoint_io
        try:
            trainer.save_checkpoint(self.folder / LAST)
        finally:
            trainer.strategy.checkpoint_io = usual
        try:
            if trainer.is_global_zero:
                self.metrics_log.sync()
                self.folder.mkdir(exist_ok=True)
                replace_checkpoints(self.folder, memory.content.getbuffer(), best)
        except OSError as error:
            free = shutil.disk_usage(self.folder).free if self.folder.exists() else 0
            kept = (
                f"the checkpoint after step {self.saved_step} is kept"
                if self.saved_step >= 0
                else "there is no checkpoint before it"
            )
            reason = f"{error_line(error)}, {free / 1e6:,.0f} MB free; after step {trainer.global_step}, {kept}"
            raise OSError(error.errno or errno.EIO, reason, str(self.folder / LAST)) from error
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
        return {
            "validated": self.validated,
            "best": self.best,
            "log": self.metrics_log.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated, self.best = state_dict["validated"], state_dict["best"]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        self.saved_step = checkpoint["global_step"]


class Memory(TorchCheckpointIO):
    """Keeps what Lightning would write, so that it is written as all files of a run are."""

    def __init__(self) -> None:
        self.content = io.BytesIO()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        torch.save(checkpoint, self.content)


def error_line(error: Exception) -> str:
    """The first line of an error's message."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0] if text else type(error).__name__
