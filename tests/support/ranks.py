"""What test_ranks.py runs in one process and in several: `python -m tests.support.ranks FOLDER JOB ...`, under torchrun.

Every job trains a backbone for six steps in float64, from the start or from a checkpoint of another job, saves a checkpoint
after three steps, and writes the losses of its steps and its metrics to FOLDER/NAME.json. A job that begins at the start
also trains a linear probe on random weights, in float32.
"""

import json
import logging
import os
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import torch
from timm.optim import Lamb
from torch.optim import SGD

from datamodules import Digits, UserError
from src.backbones import LambdaNet, LambdaResNet, Perceiver
from src.metrics.logged import metrics_of
from src.optim import Cosine
from src.tasks import Classification, LinearProbe
from src.training.batch_norm import SettleBatchNorms
from src.training.strategies import make_strategy

STEPS, SAVE_AFTER = 6, 3
BACKBONES = {
    "Perceiver": partial(
        Perceiver, num_latents=8, latent_dim=32, cross_attends=3, self_attends_per_block=2, self_heads=4
    ),
    "LambdaResNet": partial(LambdaResNet, depth=26, scope=3, stages="CLLL", share_embeddings=True),
    "LambdaNet": partial(LambdaNet, widths=(16, 32), blocks_per_stage=1),
}
OPTIMIZERS = {"Perceiver": partial(Lamb, lr=1e-2, weight_decay=0.01)}


class DoubleDigits(Digits):
    """In float64; Lightning refuses precision 64-true where a model is sharded."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        flat = super().on_after_batch_transfer(batch, dataloader_idx)
        return replace(flat, inputs={name: inputs.to(torch.float64) for name, inputs in flat.inputs.items()})


class Watch(L.Callback):
    """Keeps the loss of every step and saves a checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self.losses: list[float] = []
        self.checkpoint = checkpoint

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(trainer.callback_metrics["train/loss"].item())
        if trainer.global_step == SAVE_AFTER:
            trainer.save_checkpoint(self.checkpoint)


def trainer_of(strategy: str, **options) -> L.Trainer:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    return L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=make_strategy(strategy.rstrip("3")) if ranks > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **options,
    )


def probe(folder: Path, strategy: str) -> None:
    L.seed_everything(0, verbose=False)
    data = Digits(batch_size=12)
    model = LinearProbe(data.spec, BACKBONES["Perceiver"], penalties=[1.0, 100.0])
    trainer = trainer_of(strategy, max_epochs=1)
    try:
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        found: dict = metrics_of(trainer, "test")
    except UserError as error:
        found = {"error": str(error)}
    if trainer.is_global_zero:
        (folder / f"probe-{strategy}.json").write_text(json.dumps(found))


def train(folder: Path, strategy: str, backbone: str, start: str | None) -> None:
    name = f"{backbone}-{strategy}" + (f"-from-{start}" if start else "")
    L.seed_everything(0, verbose=False)
    os.environ["PL_GLOBAL_SEED"] = "0"
    data = DoubleDigits(batch_size=12)
    model = Classification(
        data.spec,
        BACKBONES[backbone],
        OPTIMIZERS.get(backbone, partial(SGD, lr=0.05, momentum=0.9)),
        Cosine(warmup=0.2),
        label_smoothing=0.1,
    )
    model.double()
    watch = Watch(folder / f"{backbone}-{strategy}.ckpt" if start is None else folder / "other.ckpt")
    callbacks = [watch, SettleBatchNorms(2)] if backbone == "LambdaResNet" else [watch]
    trainer = trainer_of(strategy, max_steps=STEPS, limit_test_batches=5, gradient_clip_val=1.0, callbacks=callbacks)
    trainer.fit(model, data, ckpt_path=folder / f"{backbone}-{start}.ckpt" if start else None, weights_only=True)
    trainer.test(model, data, verbose=False)
    if trainer.is_global_zero:
        found = {"losses": watch.losses, "metrics": metrics_of(trainer, "test")}
        (folder / f"{name}.json").write_text(json.dumps(found))


def run(folder: Path, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for job in jobs:
        strategy, _, start = job.partition(":")
        for kind in BACKBONES:
            train(folder, strategy, kind, start or None)
        if not start:
            probe(folder, strategy)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
