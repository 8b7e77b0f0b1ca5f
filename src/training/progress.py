"""Lightning callbacks of every run: progress that a person can read, training speed."""

from __future__ import annotations

from time import monotonic, perf_counter

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from datamodules.core.order import rank_and_world
from datamodules.core.progress import LOG_EVERY_SECONDS

WARMUP_STEPS = 3  # not timed: first steps allocate, compile and fill caches


class Throughput(Callback):
    """Training samples per second on all ranks together, data loading included, validation and first steps not."""

    def __init__(self) -> None:
        self.samples, self.seconds, self.steps = 0, 0.0, 0
        self.wall_before = 0.0  # seconds that earlier parts of the run took
        self._since = self._began = perf_counter()

    @property
    def wall_time(self) -> float:
        """Seconds that the run has taken, without those between its parts."""
        return self.wall_before + perf_counter() - self._began

    def state_dict(self) -> dict:
        return {"samples": self.samples, "seconds": self.seconds, "wall_time": self.wall_time}

    def load_state_dict(self, state_dict: dict) -> None:
        self.samples, self.seconds = state_dict["samples"], state_dict["seconds"]
        self.wall_before = state_dict["wall_time"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()

    on_validation_end = on_train_epoch_start

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        now = perf_counter()
        self.steps += 1
        if self.steps > WARMUP_STEPS:
            self.samples += len(batch.keys) * rank_and_world()[1]
            self.seconds += now - self._since
        self._since = now

    @property
    def samples_per_second(self) -> float | None:
        return self.samples / self.seconds if self.seconds else None


class RunProgress(ProgressBar):
    """One bar for the whole run on a terminal, a line now and then in a log: loss, metric, samples/s, time left."""

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
        self.first = trainer.global_step
        self.began = self.last_line = monotonic()
        if self.live and self.enabled:
            columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("", total=self.total, completed=self.first)
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
        """Epoch, step, loss, last validation, speed and time left."""
        step = trainer.global_step
        left = (now - self.began) / max(1, step - self.first) * (self.total - step)
        loss = trainer.callback_metrics.get("train/loss")  # a probe has none while it gathers features
        throughput = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)
        speed = throughput.samples_per_second if throughput else None
        parts = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"step {step}/{self.total}",
            "" if loss is None else f"loss {float(loss):.4f}",
            self.validated,
            f"{speed:,.0f} samples/s" if speed else "",
            f"{clock(left)} left",
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


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
