"""What the framework costs: a training step through src.fit beside the same step in a bare PyTorch loop; and what two
processes on one machine gain."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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

from ..cli import ByteBenchCLI
from .measure import save, synchronise

CONFIG = ("--config", "configs/digits_perceiver.yaml", "--trainer.limit_val_batches", "0")
BACKBONE = "--model.backbone.init_args."
SIZES = {
    "small": (f"{BACKBONE}num_latents", "16", f"{BACKBONE}latent_dim", "64"),
    "larger": (f"{BACKBONE}num_latents", "32", f"{BACKBONE}latent_dim", "128"),
}
EPOCHS, WARMUP = 10, 10  # epochs of 18 steps; steps that are not counted


class TakeTurns(L.Callback):
    """Between the steps of a trainer, takes those of a bare loop; keeps the seconds of both, from end to end of a step."""

    def __init__(self, bare: Iterator[None]) -> None:
        self.bare = bare
        self.seconds: dict[str, list[float]] = {"bare loop": [], "src.fit": []}
        self.last = 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        synchronise()
        fitted = perf_counter()
        next(self.bare)
        synchronise()
        done = perf_counter()
        if batch_idx:  # between the first step and the one before it lies an epoch's end
            self.seconds["src.fit"].append(fitted - self.last)
            self.seconds["bare loop"].append(done - fitted)
        self.last = done


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
    return ByteBenchCLI(options, "overhead")


def bare_steps(cli: ByteBenchCLI) -> Iterator[None]:
    """Steps with the same model, data, order, optimizer, schedule and clipping in the plainest loop."""
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
            clip_grad_norm_(model.parameters(), 10.0)  # as the config says
            optimizer.step()
            scheduler.step()
            yield


def step_seconds(size: str, folder: str) -> dict[str, list[float]]:
    """Of a step as src.fit takes it, with records, guards, progress and W&B, and of the bare loop's."""
    cli, other = build(size, folder), build(size, folder)
    turns = TakeTurns(bare_steps(other))
    trainer: Any = cli.trainer
    trainer.callbacks.append(turns)
    cli.trainer.fit(cli.model, cli.datamodule)
    return {kind: seconds[WARMUP:] for kind, seconds in turns.seconds.items()}


def throughput(processes: int, threads: int, folder: str) -> float:
    """Training samples per second of the larger size, as src.fit records them."""
    ranks = ("--trainer.accelerator", "cpu", "--trainer.devices", str(processes))
    ranks += ("--trainer.strategy", "ddp") if processes > 1 else ()
    place = str(Path(folder, f"{processes}x{threads}"))
    command = (*CONFIG, *SIZES["larger"], "--trainer.max_epochs", "4", "--runs_dir", place, *ranks)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-m", "src.fit", *command], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    [results] = Path(place).rglob("results.json")
    return json.loads(results.read_text())["train_samples_per_second"]


def run(rounds: int = 3) -> pd.DataFrame:
    """Medians over the steps, which take turns, and their ratio; samples/s of one process and of two."""
    os.environ["WANDB_MODE"] = "offline"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            found = step_seconds(size, folder)
            bare = median(found["bare loop"])
            rows += [
                {
                    "case": f"{size}, {kind}",
                    "batch": 64,
                    "steps": len(s),
                    "step_s": median(s),
                    "ratio": median(s) / bare,
                }
                for kind, s in found.items()
            ]
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
