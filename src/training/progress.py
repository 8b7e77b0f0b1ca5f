"""Callbacks of every run: training throughput and progress display."""

from __future__ import annotations

from time import monotonic, perf_counter

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from datamodules.core.order import rank_and_world
from datamodules.core.progress import LOG_EVERY_SECONDS

from ..config.command import format_duration

WARMUP_STEPS = 3  # not timed: the first steps allocate memory, compile and fill caches


class Throughput(Callback):
    """Measures training samples per second over all ranks, with data loading, without validation and the first steps."""

    def __init__(self) -> None:
        self.samples, self.seconds, self.steps = 0, 0.0, 0
        self.previous_wall_time = 0.0  # seconds, of the earlier parts of a resumed run
        self._step_start = self._start = perf_counter()

    @property
    def wall_time(self) -> float:
        """Seconds that the run has taken, without the time between its parts."""
        return self.previous_wall_time + perf_counter() - self._start

    def state_dict(self) -> dict:
        return {"samples": self.samples, "seconds": self.seconds, "wall_time": self.wall_time}

    def load_state_dict(self, state_dict: dict) -> None:
        self.samples, self.seconds = state_dict["samples"], state_dict["seconds"]
        self.previous_wall_time = state_dict["wall_time"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step_start = perf_counter()

    on_validation_end = on_train_epoch_start

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        now = perf_counter()
        self.steps += 1
        if self.steps > WARMUP_STEPS:
            self.samples += len(batch.keys) * rank_and_world()[1]
            self.seconds += now - self._step_start
        self._step_start = now

    @property
    def samples_per_second(self) -> float | None:
        return self.samples / self.seconds if self.seconds else None


class RunProgress(ProgressBar):
    """Shows epoch, loss, metric, samples/s and time left: a single bar on a terminal, occasional lines in a log file."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(stderr=True, soft_wrap=True)
        self.live = self.console.is_terminal
        self.bar: Progress | None = None
        self.enabled = True
        self.validated = ""

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.total = int(trainer.estimated_stepping_batches)
        self.first_step = trainer.global_step
        self.start_time = self.last_line = monotonic()
        if self.live and self.enabled:
            columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("", total=self.total, completed=self.first_step)
            self.bar.start()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        now = monotonic()
        if self.bar is not None:
            if now - self.last_line > 0.2 or step == self.total:
                self.last_line = now
                self.bar.update(self.task, completed=step, description=self.line(trainer, now))
        elif self.enabled and (now - self.last_line > LOG_EVERY_SECONDS or step == self.total):
            self.last_line = now
            self.console.print(f"{100 * step // self.total:3d}%  {self.line(trainer, now)}", highlight=False)

    def line(self, trainer, now: float) -> str:
        """A line with epoch, step, loss, last validation, speed and time left."""
        step = trainer.global_step
        left = (now - self.start_time) / max(1, step - self.first_step) * (self.total - step)
        loss = trainer.callback_metrics.get("train/loss")  # a probe logs none while it collects features
        throughput = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)
        speed = throughput.samples_per_second if throughput else None
        parts = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"step {step}/{self.total}",
            "" if loss is None else f"loss {float(loss):.4f}",
            self.validated,
            f"{speed:,.0f} samples/s" if speed else "",
            f"{format_duration(left)} left",
        ]
        return "  ".join(part for part in parts if part)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        monitor = f"val/{getattr(pl_module, 'monitor', 'loss')}"
        if monitor in trainer.callback_metrics:
            self.validated = f"{monitor} {float(trainer.callback_metrics[monitor]):.4f}"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    on_exception = lambda self, trainer, pl_module, exception: self.on_train_end(trainer, pl_module)  # noqa: E731
