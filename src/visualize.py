"""Draw pictures of a finished run: `python -m src.visualize runs/quickstart/dialpad_perceiver/seed0`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from datamodules.core.datamodule import SplitName

from .api import load_run
from .cli import ByteBenchCLI
from .config.command import Parser, run_command
from .config.package import command_name
from .pictures.attention import draw_attention
from .pictures.curves import draw_curves
from .pictures.receptive_fields import draw_importance, draw_receptive_fields
from .pictures.samples import draw_samples, load_samples
from .runs.folder import Run

DESCRIPTION = """Draw PNG pictures of a run: training curves, samples with predictions, saliency maps (input gradients),
receptive fields and, if the backbone has them, attention maps. Other options override the config of the run, such as
--data.data_dir FOLDER."""


def main(args: list[str] | None = None) -> list[Path]:
    """Draws the pictures, prints their paths and returns them."""
    parser = Parser(command_name("visualize"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--out", type=Path, help="folder to write to (default: RUN/pictures)")
    parser.add_argument("--samples", type=int, default=12, help="number of samples to draw (default: 12)")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="split to draw (default: test)"
    )
    parser.add_argument("--checkpoint", default="last", help="last or best (default: last)")
    parser.add_argument(
        "--wandb", action="store_true", help="also log the pictures to W&B (always if WANDB_MODE=online)"
    )
    options, overrides = parser.parse_known_args(args)
    if options.samples < 1:
        parser.error(f"--samples is {options.samples}: pass 1 or more")

    cli = load_run(Run(options.run), options.checkpoint, overrides)
    written = draw_run(cli, options.run, options.out or options.run / "pictures", options.split, options.samples)
    for path in written:
        print(path)
    if options.wandb or os.environ.get("WANDB_MODE") == "online":
        log_to_wandb(cli, options.run, written)
    return written


def draw_run(cli: ByteBenchCLI, run: Path, out: Path, split: SplitName, count: int) -> list[Path]:
    """Draws all pictures of a loaded run and returns their paths."""
    task, data, device = cli.model, cli.datamodule, cli.trainer.strategy.root_device
    data.prepare_data()
    task.to(device).eval()
    title = f"{task.title} on {type(data).__name__}"
    written = []
    if draw_curves(run / "metrics.csv", out / "training.png", f"{title}: training", task.monitor):
        written.append(out / "training.png")
    samples = load_samples(task, data, split, count, device)
    draw_samples(samples, out / "samples.png", f"{title}: {split} samples and predictions")
    written.append(out / "samples.png")
    if hasattr(task.backbone, "attention_maps"):
        written += draw_attention(task.backbone, samples, out, title)
    if task.explained is None:
        print(f"{task.title} has no gradient: no importance and no receptive fields are drawn", file=sys.stderr)
        return written
    written += draw_importance(task, samples, out, title)
    written += draw_receptive_fields(task, samples, out, title)
    return written


def log_to_wandb(cli: ByteBenchCLI, run: Path, paths: list[Path]) -> None:
    """Logs the pictures as a separate W&B run in the group of the run, with its files in the run folder."""
    import wandb

    os.environ.setdefault("WANDB_MODE", "offline")
    experiment, cell, seed = (cli.config[name] for name in ("experiment", "cell", "seed_everything"))
    name = f"{cell}-seed{seed}-pictures"
    with wandb.init(project="bytebench", job_type="visualize", name=name, group=experiment, dir=run) as logged:
        logged.log({f"pictures/{path.stem}": wandb.Image(str(path)) for path in paths})


if __name__ == "__main__":
    run_command(main)
