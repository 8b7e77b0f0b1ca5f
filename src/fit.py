"""Train one variant of a benchmark and test it: `python -m src.fit --config configs/quickstart.yaml`."""

from __future__ import annotations

from .cli import ByteBenchCLI
from .config.command import run_command
from .report.table import print_runs
from .runs.folder import Run
from .runs.wandb_logger import finish_wandb
from .suites.definition import expand_variant

DESCRIPTION = """Train the model of a config on its data, test it, and keep everything in a run folder. Any value of the
config can be changed on the command line: --trainer.max_epochs 3 --data.batch_size 32 --seed_everything 1. --variant
SUITE/NAME stands for the options of a suite's variant, such as perceiver_ablations/cross8_start."""


def main(args: list[str] | None = None) -> Run:
    """Train and test; returns the finished run."""
    cli = ByteBenchCLI(expand_variant(args or []), DESCRIPTION)
    model, data, trainer, run = cli.model, cli.datamodule, cli.trainer, cli.run
    data.prepare_data()
    model.setup("fit")  # data, and weights to probe, that are missing end the command before an older run is moved
    if cli.config["resume"] and run.finished:
        print(f"{run.folder} has finished")
        print_runs([run])
        return run
    checkpoint = cli.open_run()
    size = f"{model.num_parameters:,} parameters, {model.flops_per_example / 1e6:,.1f} MFLOPs an example"
    if trainer.is_global_zero:
        print(f"{type(model.backbone).__name__} on {type(data).__name__}: {size}")
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    trainer.test(model, data, verbose=False)
    if model.predictions is not None:
        run.write_predictions("predictions", model.predictions)
    run.write("results.json", cli.results().to_dict())
    finish_wandb(run)
    if trainer.is_global_zero:
        print_runs([run])
    return run


if __name__ == "__main__":
    run_command(main)
