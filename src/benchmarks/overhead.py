"""Overhead of the framework: a training step of src.fit against the same step in a plain PyTorch loop; what the guarantees of
the run folder cost; and the speed-up from two processes on one machine."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from datamodules.core.progress import track

from .. import api
from ..cli import ByteBenchCLI
from ..config.package import NAME
from ..runs import lock
from ..runs.folder import Run
from ..runs.metrics_log import MetricsLog
from ..training import checkpointing
from .measure import save, synchronise

CONFIG = ("--config", "configs/digits_perceiver.yaml", "--trainer.limit_val_batches", "0")
BACKBONE = "--model.backbone.init_args."
SIZES = {
    "small": (f"{BACKBONE}num_latents", "16", f"{BACKBONE}latent_dim", "64"),
    "larger": (f"{BACKBONE}num_latents", "32", f"{BACKBONE}latent_dim", "128"),
}
EPOCHS, WARMUP = 10, 10  # epochs of 18 steps; untimed steps


# What makes a run folder safe: the lock, files written aside and synced, digests, the log of metrics, the identity
PER_STEP = ((MetricsLog, "log_metrics"),)
PER_RUN = (
    (lock, "acquire"),
    (Run, "begin"),
    (Run, "write"),
    (Run, "write_predictions"),
    (Run, "identity"),
    (Run, "predictions_sha256"),
    (MetricsLog, "sync"),
    (checkpointing, "replace_checkpoints"),
)
STEP = 0.05  # seconds of the step that the log's cost is compared with


class AlternateSteps(L.Callback):
    """Runs a step of a plain loop after each step of the trainer and times both.

    Args:
        loop: runs one step of the plain loop each time it is advanced.
    """

    def __init__(self, loop: Iterator[None]) -> None:
        self.loop = loop
        self.seconds: dict[str, list[float]] = {"bare loop": [], "src.fit": []}
        self.last = 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        synchronise()
        after_trainer = perf_counter()
        next(self.loop)
        synchronise()
        after_loop = perf_counter()
        if batch_idx:  # the end of the previous epoch precedes the first step
            self.seconds["src.fit"].append(after_trainer - self.last)
            self.seconds["bare loop"].append(after_loop - after_trainer)
        self.last = after_loop


def build(size: str, folder: str) -> ByteBenchCLI:
    options = (
        *CONFIG,
        *SIZES[size],
        "--trainer.max_epochs",
        str(EPOCHS),
        "--runs_dir",
        folder,
        "--trainer.devices",
        "1",
    )
    return ByteBenchCLI(options)


def plain_loop(cli: ByteBenchCLI) -> Iterator[None]:
    """A plain PyTorch loop with the same model, data, order, optimizer, schedule and clipping."""
    model, data = cli.model, cli.datamodule
    device = cli.trainer.strategy.root_device
    model.to(device).train()
    optimizer = model.make_optimizer(model.parameters())
    loader = data.loader("train", training=True)
    scheduler = LambdaLR(optimizer, lambda step: model.schedule(step, EPOCHS * len(loader)))
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        for compact in loader:
            moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in compact.items()}
            batch = data.flatten(moved)
            optimizer.zero_grad()
            model.loss(model(batch.inputs), batch.target).mean().backward()
            clip_grad_norm_(model.parameters(), 10.0)  # as in the config
            optimizer.step()
            scheduler.step()
            yield


def step_seconds(size: str, folder: str) -> dict[str, list[float]]:
    """Seconds of the steps of src.fit, with all its callbacks and loggers, and of the plain loop."""
    cli, other = build(size, folder), build(size, folder)
    alternate = AlternateSteps(plain_loop(other))
    trainer: Any = cli.trainer
    trainer.callbacks.append(alternate)
    cli.trainer.fit(cli.model, cli.datamodule)
    return {kind: seconds[WARMUP:] for kind, seconds in alternate.seconds.items()}


@contextmanager
def timed(places: Sequence[tuple[Any, str]], seconds: list[float]) -> Iterator[None]:
    """Notes how long the calls of some functions take.

    Args:
        places: what has the function, a module or a class, and its name.
        seconds: gets the seconds of each call.
    """
    real = {place: getattr(*place) for place in places}

    def watched(function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            start = perf_counter()
            try:
                return function(*args, **options)
            finally:
                seconds.append(perf_counter() - start)

        return call

    try:
        for place, function in real.items():
            setattr(*place, watched(function))
        yield
    finally:
        for place, function in real.items():
            setattr(*place, function)


def folder_costs(folder: str) -> list[dict[str, Any]]:
    """What the run folder takes: of a step, against one of 50 ms, and in a run of EPOCHS epochs, in seconds."""
    options = (*CONFIG, *SIZES["larger"], "--trainer.max_epochs", str(EPOCHS), "--runs_dir", folder)
    per_step: list[float] = []
    per_run: list[float] = []
    with timed(PER_STEP, per_step), timed(PER_RUN, per_run):
        run = api.fit(options=options)
    steps = run.results().steps
    of_step = sum(per_step) / steps
    return [
        {
            "case": "run folder, of a step of 50 ms",
            "batch": 64,
            "steps": steps,
            "folder_s": of_step,
            "share": of_step / STEP,
        },
        {"case": f"run folder, of a run of {EPOCHS} epochs", "batch": 64, "steps": steps, "folder_s": sum(per_run)},
    ]


def throughput(processes: int, threads: int, folder: str) -> float:
    """Training samples per second of the larger size, as recorded by src.fit."""
    ranks = ("--trainer.accelerator", "cpu", "--trainer.devices", str(processes))
    ranks += ("--trainer.strategy", "ddp") if processes > 1 else ()
    runs = Path(folder, f"{processes}x{threads}")
    command = (*CONFIG, *SIZES["larger"], "--trainer.max_epochs", "4", "--runs_dir", str(runs), *ranks)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-m", f"{NAME}.fit", *command], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    [results] = runs.rglob("results.json")
    return json.loads(results.read_text())["train_samples_per_second"]


def run(rounds: int = 3) -> pd.DataFrame:
    """Median step times and their ratio; seconds of the run folder; samples/s of one process and of two."""
    os.environ["WANDB_MODE"] = "offline"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            steps = step_seconds(size, folder)
            plain = median(steps["bare loop"])
            rows += [
                {
                    "case": f"{size}, {kind}",
                    "batch": 64,
                    "steps": len(s),
                    "step_s": median(s),
                    "ratio": median(s) / plain,
                }
                for kind, s in steps.items()
            ]
        rows += folder_costs(tempfile.mkdtemp(dir=folder))
        cases = {"1 process": (1, 1), "2 processes, ddp": (2, 1), "1 process, 2 threads": (1, 2)}
        speeds: dict[str, list[float]] = {case: [] for case in cases}
        for _ in track(range(rounds), "processes: alternating", total=rounds, unit="turns"):
            for case, (processes, threads) in cases.items():
                speeds[case].append(throughput(processes, threads, tempfile.mkdtemp(dir=folder)))
        one = median(speeds["1 process"])
        rows += [
            {"case": f"larger, {case}", "batch": 64, "samples_per_s": median(s), "gain": median(s) / one}
            for case, s in speeds.items()
        ]
    return save(rows, "overhead")
